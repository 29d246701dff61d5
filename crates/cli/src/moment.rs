//! Points in time and positions as users write them.

use std::time::Duration;

use base::ids::TimestampMs;
use client::Start;

use crate::failure::{Failure, Outcome};

/// Reads a point in time: milliseconds since 1970, `2026-01-31`, `2026-01-31T12:30[:15[.250]][Z]` (UTC), or a
/// time ago as in `90s`, `15m`, `2h`, `7d`.
pub(crate) fn parse_moment(text: &str, now_ms: TimestampMs) -> Outcome<TimestampMs> {
    let known = number(text)
        .or_else(|| Some(now_ms.saturating_sub(i64::try_from(parse_ago(text)?.as_millis()).ok()?).max(0)))
        .or_else(|| parse_date(text));
    known.ok_or_else(|| {
        Failure::usage(format!("`{text}` is no point in time")).help(
            "say milliseconds since 1970, 2026-01-31, 2026-01-31T12:30:15 (UTC), or 90s, 15m, 2h, 7d ago",
        )
    })
}

fn parse_ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count = u64::try_from(number(text.strip_suffix(unit)?)?).ok()?;
    count.checked_mul(seconds).map(Duration::from_secs)
}

fn parse_date(text: &str) -> Option<TimestampMs> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, millis) = match time.split_once('.') {
        Some((time, millis)) if millis.len() == 3 => (time, number(millis)?),
        Some(_) => return None,
        None => (time, 0),
    };
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute) = (time.next()??, time.next()??);
    let second = time.next().unwrap_or(Some(0))?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let day_seconds = hour * 3_600 + minute * 60 + second;
    in_range.then(|| (days_since_epoch(year, month, day) * 86_400 + day_seconds) * 1_000 + millis)
}

/// Digits alone: no sign, no blanks.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = |years: i64| years / 4 - years / 100 + years / 400;
    let years = (year - 1970) * 365 + leap_days(before) - leap_days(1969);
    years + (1..month).map(|month| days_of_month(year, month)).sum::<i64>() + day - 1
}

/// Reads where to begin: `beginning`, `end`, an offset, `-N` for N before the end, `@TIME`.
pub(crate) fn parse_start(text: &str, now_ms: TimestampMs) -> Outcome<Start> {
    if let Some(moment) = text.strip_prefix('@') {
        return parse_moment(moment, now_ms).map(Start::Time);
    }
    match text {
        "beginning" | "earliest" => Ok(Start::Beginning),
        "end" | "latest" => Ok(Start::End),
        text => match (text.parse::<i64>(), text.starts_with('-')) {
            (Ok(count), true) => Ok(Start::BeforeEnd(count.unsigned_abs())),
            (Ok(offset), false) => Ok(Start::Offset(offset)),
            _ => Err(Failure::usage(format!("`{text}` is no position"))
                .help("say beginning, end, an offset, -N for N records before the end, or @TIME")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::timestamp;

    const NOW: TimestampMs = 1_700_000_000_000;

    #[test]
    fn moments_are_read_in_every_form() {
        let read = |text| parse_moment(text, NOW).ok();
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("1700000000123"), Some(1_700_000_000_123));
        assert_eq!(read("2h"), Some(NOW - 7_200_000));
        assert_eq!(read("999999999d"), Some(0));
        assert_eq!(read("2023-11-14T22:13:20"), Some(NOW));
        assert_eq!(read("2023-11-14 22:13:20.123Z"), Some(NOW + 123));
        assert_eq!(read("2000-02-29"), Some(951_782_400_000));
        for bad in ["", "x", "-5", "2h30", "2023-02-29", "2023-13-01", "2023-01-01T24:00", "+5", "1969-12-31"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn reading_undoes_printing() {
        for ms in [0, 951_782_400_123, 951_868_799_999, 4_107_542_400_000, NOW, 253_402_300_799_999] {
            assert_eq!(parse_moment(&timestamp(ms), NOW), Ok(ms));
        }
    }

    #[test]
    fn positions_are_read_in_every_form() {
        let read = |text| parse_start(text, NOW).ok();
        assert_eq!(read("beginning"), Some(Start::Beginning));
        assert_eq!(read("latest"), Some(Start::End));
        assert_eq!(read("17"), Some(Start::Offset(17)));
        assert_eq!(read("-17"), Some(Start::BeforeEnd(17)));
        assert_eq!(read("@1h"), Some(Start::Time(NOW - 3_600_000)));
        assert_eq!(read("soon"), None);
    }
}
