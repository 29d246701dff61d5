//! "Did you mean" for names nobody knows.

use super::table::{broker_keys, topic_key, topic_keys};

/// Names less alike than this are no help.
const LEAST_LIKENESS: f64 = 0.78;

/// What a name that is no broker key was probably meant to be.
pub(super) fn broker_hint(name: &str) -> String {
    // `retention.ms` in a broker's file is nearly right: say the broker's word for it.
    if let Some((synonym, _)) = topic_key(name).and_then(|key| key.synonyms.first()) {
        return format!("; `{name}` is a topic's key, a broker's is `{synonym}`");
    }
    hint(name, broker_keys().iter().filter(|key| !key.internal).map(|key| key.name))
}

/// What a name that is no topic key was probably meant to be.
pub(super) fn topic_hint(name: &str) -> String {
    let of_broker = |key: &&&super::ConfigKey| key.synonyms.iter().any(|(synonym, _)| *synonym == name);
    if let Some(key) = topic_keys().iter().find(of_broker) {
        return format!("; `{name}` is a broker's key, a topic's is `{}`", key.name);
    }
    hint(name, topic_keys().iter().filter(|key| !key.internal).map(|key| key.name))
}

fn hint(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let plain = name.trim().to_lowercase().replace(['_', '-'], ".");
    let scored = known.map(|other| (strsim::normalized_damerau_levenshtein(&plain, other), other));
    match scored.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, other)) if likeness >= LEAST_LIKENESS => format!("; did you mean `{other}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood() {
        for (slip, meant) in [
            ("num.partition", "num.partitions"),
            ("log.retension.ms", "log.retention.ms"),
            ("log_dirs", "log.dirs"),
            ("vltava.durabilty", "vltava.durability"),
            ("Advertised.Listeners", "advertised.listeners"),
        ] {
            assert!(
                broker_hint(slip).contains(&format!("did you mean `{meant}`?")),
                "{slip}: {}",
                broker_hint(slip)
            );
        }
        assert_eq!(
            broker_hint("retention.ms"),
            "; `retention.ms` is a topic's key, a broker's is `log.retention.ms`"
        );
        assert_eq!(
            topic_hint("log.segment.bytes"),
            "; `log.segment.bytes` is a broker's key, a topic's is `segment.bytes`"
        );
        assert!(topic_hint("retention.msec").contains("`retention.ms`"));
        assert_eq!(broker_hint("something.else.entirely"), "");
    }
}
