//! Control records: what a control batch says to readers instead of carrying data.

use super::BatchError;

/// What a control record announces; its key is `version i16, type i16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecordType {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// Another type, which clients ignore.
    Other(i16),
}

impl ControlRecordType {
    /// Reads the key of a control record.
    pub fn parse(key: Option<&[u8]>) -> Result<ControlRecordType, BatchError> {
        let Some([version_high, version_low, type_high, type_low, ..]) = key else {
            return Err(BatchError::InvalidRecord {
                index: 0,
                reason: "its control key has fewer than 4 bytes",
            });
        };
        if i16::from_be_bytes([*version_high, *version_low]) < 0 {
            return Err(BatchError::InvalidRecord {
                index: 0,
                reason: "its control key version is negative",
            });
        }
        Ok(match i16::from_be_bytes([*type_high, *type_low]) {
            0 => ControlRecordType::Abort,
            1 => ControlRecordType::Commit,
            other => ControlRecordType::Other(other),
        })
    }

    /// The key of a control record of this type.
    pub fn key(self) -> [u8; 4] {
        let number: i16 = match self {
            ControlRecordType::Abort => 0,
            ControlRecordType::Commit => 1,
            ControlRecordType::Other(number) => number,
        };
        let [high, low] = number.to_be_bytes();
        [0, 0, high, low]
    }
}

/// The value of an abort or commit record: `version i16, coordinator epoch i32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Epoch of the transaction coordinator that wrote it; older ones are fenced.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads the value of an abort or commit record.
    pub fn parse(value: Option<&[u8]>) -> Result<EndTransactionMarker, BatchError> {
        let Some(&[version_high, version_low, a, b, c, d, ..]) = value else {
            return Err(BatchError::InvalidRecord { index: 0, reason: "its marker has fewer than 6 bytes" });
        };
        if i16::from_be_bytes([version_high, version_low]) < 0 {
            return Err(BatchError::InvalidRecord { index: 0, reason: "its marker version is negative" });
        }
        Ok(EndTransactionMarker { coordinator_epoch: i32::from_be_bytes([a, b, c, d]) })
    }

    /// The value of an abort or commit record.
    pub fn value(self) -> [u8; 6] {
        let [a, b, c, d] = self.coordinator_epoch.to_be_bytes();
        [0, 0, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_round_trip() {
        for kind in [ControlRecordType::Abort, ControlRecordType::Commit, ControlRecordType::Other(2)] {
            assert_eq!(ControlRecordType::parse(Some(&kind.key())), Ok(kind));
        }
        let marker = EndTransactionMarker { coordinator_epoch: 77 };
        assert_eq!(EndTransactionMarker::parse(Some(&marker.value())), Ok(marker));
    }

    #[test]
    fn short_or_negative_ones_are_refused() {
        assert!(ControlRecordType::parse(None).is_err());
        assert!(ControlRecordType::parse(Some(&[0, 0, 0])).is_err());
        assert!(ControlRecordType::parse(Some(&[0x80, 0, 0, 0])).is_err());
        assert!(EndTransactionMarker::parse(Some(&[0; 5])).is_err());
        assert!(EndTransactionMarker::parse(Some(&[0xff, 0, 0, 0, 0, 0])).is_err());
    }
}
