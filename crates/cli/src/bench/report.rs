//! What a run measured, for people and for programs.

use std::path::Path;
use std::time::Duration;

use base::env::{Disk, OpenMode};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::failure::Outcome;
use crate::output::{self, Form, bytes, count, duration, rate};

/// Longest latency that is told apart, µs: ten minutes. Longer ones count as that.
const LONGEST_US: u64 = 600_000_000;
/// Decimal digits of a latency that are kept.
const DIGITS: u8 = 3;
/// A generator that sent a hundredth of its records later than this after they were due may be what was measured.
const LATE: Duration = Duration::from_millis(1);
/// Ticks of a second in /proc; the same on all Linux systems of our time.
const TICKS_PER_SECOND: f64 = 100.0;

/// Latencies, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are valid"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// The 99th percentile.
    pub(super) fn p99(&self) -> Duration {
        self.at(0.99)
    }

    fn object(&self) -> Value {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        json!({
            "samples": self.len(),
            "mean": self.0.mean() / 1e3,
            "p50": ms(self.at(0.5)),
            "p90": ms(self.at(0.9)),
            "p99": ms(self.p99()),
            "p99.9": ms(self.at(0.999)),
            "p99.99": ms(self.at(0.9999)),
            "max": ms(self.max()),
        })
    }

    fn text(&self) -> String {
        format!(
            "p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}",
            duration(self.at(0.5)),
            duration(self.at(0.9)),
            duration(self.p99()),
            duration(self.at(0.999)),
            duration(self.max())
        )
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// produced or consumed.
    pub(super) verb: &'static str,
    pub(super) records: u64,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// What each kind of latency is called, and where it begins and ends.
    pub(super) latencies: Vec<(&'static str, &'static str, Latencies)>,
    /// How late records were sent after they were due; without a rate they are never due.
    pub(super) late: Option<Latencies>,
    /// Processor time this process took meanwhile.
    pub(super) client_cpu: Duration,
}

impl Report {
    /// Whether this process rather than the broker may be what was measured.
    fn generator_was_late(&self) -> bool {
        self.late.as_ref().is_some_and(|late| late.p99() > LATE)
    }

    /// Prints it.
    pub(super) fn print(&self, form: Form) -> Outcome {
        match form {
            Form::Json => output::json(&self.object()),
            Form::Table => self.lines().iter().try_for_each(|line| output::line(line)),
        }
    }

    fn object(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        let per_second = |number: u64| if seconds > 0.0 { number as f64 / seconds } else { 0.0 };
        let mut object = Map::new();
        object.insert("records".to_owned(), json!(self.records));
        object.insert("bytes".to_owned(), json!(self.bytes));
        object.insert("seconds".to_owned(), json!(seconds));
        object.insert("records_per_second".to_owned(), json!(per_second(self.records)));
        object.insert("bytes_per_second".to_owned(), json!(per_second(self.bytes)));
        for (name, _, latencies) in &self.latencies {
            object.insert(format!("{name}_latency_ms"), latencies.object());
        }
        if let Some(late) = &self.late {
            object.insert("sent_late_ms".to_owned(), late.object());
            object.insert("generator_was_late".to_owned(), json!(self.generator_was_late()));
        }
        object.insert("client_cpu_seconds".to_owned(), json!(self.client_cpu.as_secs_f64()));
        Value::Object(object)
    }

    fn lines(&self) -> Vec<String> {
        let (records, size, took) = (count(self.records), bytes(self.bytes), duration(self.took));
        let bytes_per_second = bytes((self.bytes as f64 / self.took.as_secs_f64().max(1e-9)) as u64);
        let mut lines = vec![format!(
            "{:<10} {records} records, {size} in {took}: {}, {bytes_per_second}/s",
            self.verb,
            rate(self.records, self.took)
        )];
        for (name, what, latencies) in &self.latencies {
            lines.push(format!(
                "{name:<10} {} ({what}, {} samples)",
                latencies.text(),
                count(latencies.len())
            ));
        }
        lines.push(format!("client     {:.2} s of processor time", self.client_cpu.as_secs_f64()));
        if let Some(late) = self.late.as_ref().filter(|_| self.generator_was_late()) {
            let late = duration(late.p99());
            lines.push(format!(
                "note       records were sent up to {late} late (p99): this process may be the bottleneck"
            ));
        }
        lines
    }
}

/// Processor time this process has taken; `None` where there is no /proc.
pub(super) fn cpu_time(disk: &dyn Disk) -> Option<Duration> {
    let file = disk.open(Path::new("/proc/self/stat"), OpenMode::Read).ok()?;
    let mut bytes = [0; 1_024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    parse_cpu_time(std::str::from_utf8(&bytes[..length]).ok()?)
}

/// The 14th and 15th fields, `utime` and `stime`; the second, in parentheses, may hold spaces.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 2087 0 0 0 150 25 0 0 20 0 9 0 123 0 0";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(parse_cpu_time("77 (a) S 1"), None);
    }

    #[test]
    fn a_report_tells_programs_numbers_and_people_words() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let report = Report {
            verb: "produced",
            records: 1_000,
            bytes: 1 << 20,
            took: Duration::from_secs(2),
            latencies: vec![("ack", "from due to acknowledged", latencies.clone())],
            late: Some(latencies),
            ..Report::default()
        };
        let object = report.object();
        assert_eq!(object["records_per_second"], json!(500.0));
        assert_eq!(object["ack_latency_ms"]["samples"], json!(1_000));
        let p99 = object["ack_latency_ms"]["p99"].as_f64().unwrap_or_default();
        assert!((0.989..=0.992).contains(&p99), "{p99}");
        assert_eq!(object["generator_was_late"], json!(false));
        let lines = report.lines();
        assert!(lines[0].contains("1,000 records, 1.0 MiB in 2.00 s: 500/s, 512 KiB/s"), "{lines:?}");
        assert!(lines[1].starts_with("ack        p50 500 µs"), "{lines:?}");
    }
}
