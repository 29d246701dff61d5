//! Any text as a server.properties, and any text as the value of any key: it is taken, or what is wrong is told.

#![no_main]

use base::config::{
    Assignment, BrokerConfig, UnknownKeys, broker_keys, check_topic_value, parse_properties, topic_keys,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    if let Some(number) = choice.checked_sub(64) {
        let _ = broker_keys().get(usize::from(number)).map(|key| key.parse(&text));
        let _ = topic_keys().get(usize::from(number)).map(|key| check_topic_value(key.name, &text));
        return;
    }
    let mut assignments = parse_properties(&text).unwrap_or_default();
    assignments.extend(Assignment::from_argument(&text));
    for assignment in &mut assignments {
        // A number stands for the key in that place of the table.
        if let Some(key) = assignment.key.parse::<usize>().ok().and_then(|number| broker_keys().get(number)) {
            assignment.key = key.name.to_owned();
        }
    }
    if let Err(errors) = BrokerConfig::load(&assignments, UnknownKeys::Tell) {
        assert!(!errors.is_empty(), "a refusal without a reason");
        errors.iter().for_each(|error| drop(error.to_string()));
    }
});
