//! Says on standard error what a command waits for, so that nobody sits before a silent terminal.
//!
//! A task looks at what the client tries again. What has lasted a while is told once, another reason for
//! it now and then, and its end when everything goes on.

use std::time::Duration;

use client::{Client, Trouble};

use crate::failure::advice_while_trying;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What passes sooner is not worth a word.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Least time between two reasons.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Tells of the client's troubles as long as the process lives.
pub(crate) fn tell_troubles(client: &Client) {
    let client = client.clone();
    let clock = client.env().clock.clone();
    tokio::spawn(async move {
        let mut teller = Teller::default();
        loop {
            clock.sleep(LOOK_EVERY).await;
            if let Some(line) = teller.look(clock.now(), client.trouble()) {
                tell!("{line}");
            }
        }
    });
}

/// What was told, and when.
#[derive(Default)]
struct Teller {
    told: Option<(Duration, String)>,
}

impl Teller {
    /// What is to be said now.
    fn look(&mut self, now: Duration, trouble: Option<Trouble>) -> Option<String> {
        let Some(trouble) = trouble else {
            return self.told.take().map(|_| "it goes on: what was in the way is over".to_owned());
        };
        let text = text(&trouble);
        let is_due = match &self.told {
            None => now >= trouble.since + TELL_AFTER,
            Some((at, told)) => *told != text && now >= *at + TELL_AGAIN_AFTER,
        };
        is_due.then(|| {
            self.told = Some((now, text.clone()));
            text
        })
    }
}

fn text(trouble: &Trouble) -> String {
    let others = match trouble.others {
        0 => String::new(),
        others => format!(", and {others} more like it"),
    };
    let advice = advice_while_trying(&trouble.error).map(|advice| format!("\n help: {advice}"));
    format!("trying again: {}{others}{}", trouble.error, advice.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use base::error::ErrorCode;
    use client::ClientError;

    use super::*;

    fn trouble(since: u64, code: ErrorCode) -> Option<Trouble> {
        let error = ClientError::Broker { subject: "partition 1".to_owned(), code, message: None };
        Some(Trouble { error, since: Duration::from_secs(since), others: 0 })
    }

    #[test]
    fn a_trouble_is_told_once_when_it_lasts_and_its_end_too() {
        let mut teller = Teller::default();
        let mut look = |now, trouble| teller.look(Duration::from_secs(now), trouble);
        assert_eq!(look(10, None), None);
        assert_eq!(look(11, trouble(10, ErrorCode::LeaderNotAvailable)), None);
        let told = look(12, trouble(10, ErrorCode::LeaderNotAvailable)).expect("it lasts");
        assert!(told.starts_with("trying again: partition 1: "), "{told}");
        assert_eq!(look(13, trouble(10, ErrorCode::LeaderNotAvailable)), None);
        assert_eq!(look(14, trouble(10, ErrorCode::KafkaStorageError)), None);
        let told = look(22, trouble(10, ErrorCode::KafkaStorageError)).expect("another reason");
        assert!(told.contains("help: the disk may be full"), "{told}");
        assert!(look(23, None).expect("the end").starts_with("it goes on"));
        assert_eq!(look(24, None), None);
        // What passes soon is neither told nor called over.
        assert_eq!(look(25, trouble(24, ErrorCode::LeaderNotAvailable)), None);
        assert_eq!(look(26, None), None);
    }
}
