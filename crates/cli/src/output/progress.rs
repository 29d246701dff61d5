//! A line on the terminal that counts while records go by. Draws nothing when standard error is no terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::human::{bytes, count, counted, duration};

/// How often it is drawn at most, times a second: faster than that nobody reads.
const DRAWINGS_PER_SECOND: u8 = 10;
/// After that much time the time left is told.
const TELLS_AFTER: Duration = Duration::from_secs(1);

/// How far the reading of an input is: towards its end where its size is known, else in counters alone.
pub(crate) struct InputProgress {
    bar: ProgressBar,
    /// Records, for what has no place in the bar itself.
    records: Arc<AtomicU64>,
}

impl InputProgress {
    /// Of an input of that many bytes, if that is known; `what` says what is done with it.
    pub(crate) fn new(size: Option<u64>, what: &'static str) -> InputProgress {
        let template = match size {
            Some(_) => "{msg:<9} {bar:32} {done} of {whole}, {records}, {byte_rate}, {left} left",
            None => "{msg:<9} {spinner} {done}, {records}, {byte_rate}",
        };
        let records = Arc::new(AtomicU64::new(0));
        let number = records.clone();
        let style = style(template)
            .with_key("records", move |_: &ProgressState, out: &mut dyn Write| {
                let records = usize::try_from(number.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
                put(out, &counted(records, "record"));
            })
            .with_key("done", |state: &ProgressState, out: &mut dyn Write| put(out, &bytes(state.pos())))
            .with_key("whole", |state: &ProgressState, out: &mut dyn Write| {
                put(out, &bytes(state.len().unwrap_or(0)));
            })
            .with_key("byte_rate", |state: &ProgressState, out: &mut dyn Write| {
                put(out, &format!("{}/s", bytes(state.per_sec() as u64)));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                put(out, &left(state.elapsed(), state.eta()))
            });
        InputProgress { bar: bar(size, style).with_message(what), records }
    }

    /// One that shows nothing.
    pub(crate) fn hidden() -> InputProgress {
        InputProgress { bar: ProgressBar::hidden(), records: Arc::default() }
    }

    /// So many records were taken from so many bytes of the input.
    pub(crate) fn advance(&self, records: u64, bytes: u64) {
        self.records.store(records, Ordering::Relaxed);
        self.bar.set_position(bytes);
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Counts records towards an end; `what` says what is done.
pub(crate) fn towards(end: u64, what: &'static str) -> ProgressBar {
    let style = style("{msg:<9} {bar:32} {human_pos} of {human_len} records, {rounded_rate}, {left} left")
        .with_key("rounded_rate", |state: &ProgressState, out: &mut dyn Write| {
            put(out, &rounded(state.per_sec()));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
            put(out, &left(state.elapsed(), state.eta()))
        });
    bar(Some(end), style).with_message(what)
}

/// Counts records without an end; `what` says what is done.
pub(crate) fn counting(what: &'static str) -> ProgressBar {
    let style = style("{msg:<9} {spinner} {human_pos} records, {rounded_rate}, {elapsed}").with_key(
        "rounded_rate",
        |state: &ProgressState, out: &mut dyn Write| {
            put(out, &rounded(state.per_sec()));
        },
    );
    bar(None, style).with_message(what)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

fn bar(end: Option<u64>, style: ProgressStyle) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWINGS_PER_SECOND);
    ProgressBar::with_draw_target(end, target).with_style(style)
}

/// It cannot fail: it writes to a string.
fn put(out: &mut dyn Write, text: &str) {
    let _ = out.write_str(text);
}

/// `12,345/s`.
fn rounded(per_second: f64) -> String {
    format!("{}/s", count(per_second.round() as i64))
}

/// The time left in whole seconds: more would flicker. The first records tell nothing of it.
fn left(elapsed: Duration, eta: Duration) -> String {
    match eta.as_secs() {
        _ if elapsed < TELLS_AFTER => "–".to_owned(),
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => duration(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use indicatif::TermLike;
    use parking_lot::Mutex;

    use super::*;

    /// A terminal that keeps what was written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rates_and_times_have_no_fractions() {
        assert_eq!(rounded(6_517.49), "6,517/s");
        assert_eq!(rounded(0.0), "0/s");
        assert_eq!(left(TELLS_AFTER, Duration::from_millis(2_900)), "2 s");
        assert_eq!(left(TELLS_AFTER, Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(left(Duration::ZERO, Duration::from_secs(125)), "–");
    }

    fn drawn(size: Option<u64>) -> String {
        let screen = Screen::default();
        let progress = InputProgress::new(size, "producing");
        progress.bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        progress.advance(1_200, 512 << 10);
        progress.bar.force_draw();
        screen.0.lock().trim_end().to_owned()
    }

    #[test]
    fn an_input_of_known_size_has_a_bar_with_rate_and_time_left() {
        let line = drawn(Some(1 << 20));
        assert!(line.starts_with("producing █"), "{line}");
        assert!(line.contains("512 KiB of 1.0 MiB, 1,200 records, ") && line.ends_with(" left"), "{line}");
    }

    #[test]
    fn an_input_of_unknown_size_has_counters() {
        let line = drawn(None);
        assert!(line.contains("512 KiB, 1,200 records, ") && !line.contains("left"), "{line}");
    }
}
