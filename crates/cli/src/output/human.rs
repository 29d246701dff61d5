//! Numbers and times as people read them.

use std::time::Duration;

use base::ids::TimestampMs;

/// `1,234,567`.
pub(crate) fn count(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// `512 B`, `1.5 KiB`, `20 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `850 µs`, `1.25 ms`, `3.10 s`, `2 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds < 0.001 => format!("{} µs", duration.as_micros()),
        _ if seconds < 1.0 => format!("{:.2} ms", seconds * 1000.0),
        _ if seconds < 60.0 => format!("{seconds:.2} s"),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// `1 record`, `12,345 records`: a number and what it counts, named in the singular.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number as i64))
}

/// `12,345/s`; over no time at all there is no rate.
pub(crate) fn rate(number: u64, over: Duration) -> String {
    let seconds = over.as_secs_f64();
    if seconds <= 0.0 {
        return "–".to_owned();
    }
    format!("{}/s", count((number as f64 / seconds) as i64))
}

/// Days from the epoch to the year 0 of the proleptic Gregorian calendar, counted from 1 March.
const DAYS_BEFORE_EPOCH: i64 = 719_468;
/// Days of 400 years.
const DAYS_OF_ERA: i64 = 146_097;
const MS_OF_DAY: i64 = 86_400_000;

/// `2026-01-31T23:59:59.123Z`; a dash for "none".
pub(crate) fn timestamp(ms: TimestampMs) -> String {
    if ms < 0 {
        return "–".to_owned();
    }
    let (days, within) = (ms / MS_OF_DAY, ms % MS_OF_DAY);
    // Years begin on 1 March here, so that the leap day is the last.
    let day = days + DAYS_BEFORE_EPOCH;
    let (era, of_era) = (day.div_euclid(DAYS_OF_ERA), day.rem_euclid(DAYS_OF_ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (DAYS_OF_ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hours, minutes) = (within / 3_600_000, within / 60_000 % 60);
    let (seconds, millis) = (within / 1_000 % 60, within % 1_000);
    format!("{year:04}-{month:02}-{date:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(-1_234_567), "-1,234,567");
        assert_eq!(count(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(counted(1, "committed offset"), "1 committed offset");
        assert_eq!(counted(1_200, "record"), "1,200 records");
        assert_eq!(counted(0, "record"), "0 records");
    }

    #[test]
    fn sizes_take_the_fitting_unit() {
        let shown = [0, 1023, 1024, 1536, 20 << 20, 1 << 40, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 MiB", "1.0 TiB", "16384 PiB"]);
    }

    #[test]
    fn durations_and_rates() {
        let shown =
            [850, 1_250, 3_100_000, 125_000_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(shown, ["850 µs", "1.25 ms", "3.10 s", "2 min 5 s"]);
        assert_eq!(rate(5_000, Duration::from_millis(500)), "10,000/s");
        assert_eq!(rate(1, Duration::ZERO), "–");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(-1), "–");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(timestamp(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(timestamp(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(timestamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        // Far beyond any clock, yet no panic.
        assert!(timestamp(i64::MAX).ends_with('Z'));
    }
}
