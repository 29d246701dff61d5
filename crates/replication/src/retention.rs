//! Which segments at the head of a log may go. Pure.
//!
//! Kafka's rules: a segment is expired when its largest timestamp (or its file, where records have none)
//! is older than `retention.ms`, or when the log without it still has `retention.bytes`; only whole
//! segments from the front go, and nothing beyond the high watermark.

use base::ids::{Offset, TimestampMs};

/// One segment as retention sees it, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    /// Offset after its last one; for the open segment the log end offset.
    pub end: Offset,
    /// Length, bytes.
    pub bytes: u64,
    /// Largest record timestamp, or when the file was last written where no record has one; -1 when neither is
    /// known.
    pub timestamp_ms: TimestampMs,
}

/// How much a topic keeps; `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `retention.ms`.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`.
    pub retention_bytes: Option<u64>,
}

/// The new log start: the end of the last segment of the expired head; `None` when nothing expired.
/// A segment that reaches beyond `high_watermark` stays, with all behind it. An empty last segment
/// never expires.
pub fn expired_head(
    segments: &[Aged],
    limits: Limits,
    high_watermark: Offset,
    now_ms: TimestampMs,
) -> Option<Offset> {
    let mut total: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut start = None;
    for segment in segments {
        if segment.end > high_watermark || segment.bytes == 0 {
            break;
        }
        let age_ms = now_ms.saturating_sub(segment.timestamp_ms);
        let by_time = segment.timestamp_ms >= 0 && limits.retention_ms.is_some_and(|limit| age_ms > limit);
        let rest = total - segment.bytes;
        let by_size = limits.retention_bytes.is_some_and(|limit| rest >= limit);
        if !by_time && !by_size {
            break;
        }
        total = rest;
        start = Some(segment.end);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Limits = Limits { retention_ms: None, retention_bytes: None };

    fn segment(end: Offset, bytes: u64, timestamp_ms: TimestampMs) -> Aged {
        Aged { end, bytes, timestamp_ms }
    }

    #[test]
    fn k_3_03_only_whole_old_segments_go_from_the_front() {
        let log = [segment(10, 5, 100), segment(20, 5, 200), segment(30, 5, 150), segment(40, 5, 900)];
        let limits = Limits { retention_ms: Some(500), ..FOREVER };
        assert_eq!(expired_head(&log, limits, 40, 650), Some(10));
        assert_eq!(expired_head(&log, limits, 40, 701), Some(30));
        assert_eq!(expired_head(&log, limits, 25, 701), Some(20));
        assert_eq!(expired_head(&log, FOREVER, 40, i64::MAX), None);
    }

    #[test]
    fn k_3_03_size_keeps_at_least_the_limit() {
        let log = [segment(10, 5, -1), segment(20, 5, -1), segment(30, 5, -1)];
        let limit = |bytes| Limits { retention_bytes: Some(bytes), ..FOREVER };
        assert_eq!(expired_head(&log, limit(15), 30, 0), None);
        assert_eq!(expired_head(&log, limit(10), 30, 0), Some(10));
        assert_eq!(expired_head(&log, limit(9), 30, 0), Some(10));
        assert_eq!(expired_head(&log, limit(0), 30, 0), Some(30));
    }

    #[test]
    fn a_segment_of_unknown_age_does_not_expire_by_time() {
        let limits = Limits { retention_ms: Some(0), ..FOREVER };
        assert_eq!(expired_head(&[segment(10, 5, -1)], limits, 10, 1_000), None);
    }

    #[test]
    fn an_empty_open_segment_stays() {
        let log = [segment(10, 5, 1), segment(10, 0, -1)];
        let limits = Limits { retention_ms: Some(0), retention_bytes: Some(0) };
        assert_eq!(expired_head(&log, limits, 10, 1_000), Some(10));
    }
}
