//! A line on the terminal that counts while records go by.

use std::sync::Arc;
use std::time::Duration;

use base::env::{Clock, Env};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::human::count;

/// Least time between two drawings: faster than that nobody reads.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Counts records. Draws nothing when standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    clock: Arc<dyn Clock>,
    next_drawing: Duration,
}

impl Progress {
    /// Counts without a known end.
    pub(crate) fn counting(env: &Env) -> Progress {
        let template = "{spinner} {human_pos} records, {rounded_rate}";
        Progress::new(env, ProgressBar::new_spinner().with_style(style(template)))
    }

    /// Counts towards an end; `what` says what is done.
    pub(crate) fn towards(env: &Env, end: u64, what: &'static str) -> Progress {
        let template = "{msg:<9} {bar:32} {human_pos}/{human_len} records, {rounded_rate}";
        Progress::new(env, ProgressBar::new(end).with_style(style(template)).with_message(what))
    }

    /// Shows nothing.
    pub(crate) fn hidden(env: &Env) -> Progress {
        Progress::new(env, ProgressBar::hidden())
    }

    fn new(env: &Env, bar: ProgressBar) -> Progress {
        Progress { bar, clock: env.clock.clone(), next_drawing: Duration::ZERO }
    }

    /// So many records went by.
    pub(crate) fn set(&mut self, records: u64) {
        if self.is_due(self.clock.now()) {
            self.bar.set_position(records);
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.next_drawing;
        if is_due {
            self.next_drawing = now + DRAW_EVERY;
        }
        is_due
    }

    /// Takes the line away.
    pub(crate) fn clear(self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    style.with_key("rounded_rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // It cannot fail: it writes to a string.
        let _ = out.write_str(&rounded(state.per_sec()));
    })
}

/// `12,345/s`.
fn rounded(per_second: f64) -> String {
    format!("{}/s", count(per_second.round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_no_fractions() {
        assert_eq!(rounded(6_517.49), "6,517/s");
        assert_eq!(rounded(0.0), "0/s");
    }

    #[test]
    fn it_is_drawn_ten_times_a_second_at_most() {
        let mut progress = Progress::hidden(&Env::os());
        let second = (0..1_000).map(Duration::from_millis);
        assert_eq!(second.filter(|now| progress.is_due(*now)).count(), 10);
    }
}
