//! A line on the terminal that counts while records go by.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::human::count;

/// How often it is drawn at most, times a second: faster than that nobody reads.
const DRAWINGS_PER_SECOND: u8 = 10;

/// Counts without a known end. Draws nothing when standard error is no terminal.
pub(crate) fn counting() -> ProgressBar {
    bar(None, "{spinner} {human_pos} records, {rounded_rate}")
}

/// Counts towards an end; `what` says what is done.
pub(crate) fn towards(end: u64, what: &'static str) -> ProgressBar {
    bar(Some(end), "{msg:<9} {bar:32} {human_pos}/{human_len} records, {rounded_rate}").with_message(what)
}

fn bar(end: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let style = style.with_key("rounded_rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // It cannot fail: it writes to a string.
        let _ = out.write_str(&rounded(state.per_sec()));
    });
    let target = ProgressDrawTarget::stderr_with_hz(DRAWINGS_PER_SECOND);
    ProgressBar::with_draw_target(end, target).with_style(style)
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
}
