//! What was acknowledged: each record with the offset it was given, to be looked for after a fault.

use std::collections::BTreeMap;

use base::batch::{Batches, DecompressBuffer};

/// Acknowledged values by partition and offset, and what was sent without an answer.
#[derive(Debug, Default)]
pub struct Journal {
    acknowledged: BTreeMap<(i32, i64), Vec<u8>>,
    unknown: BTreeMap<(i32, Vec<u8>), u32>,
}

impl Journal {
    /// Notes an acknowledged value.
    pub fn acknowledge(&mut self, partition: i32, offset: i64, value: Vec<u8>) {
        let before = self.acknowledged.insert((partition, offset), value);
        assert!(before.is_none(), "offset {offset} of partition {partition} was acknowledged twice");
    }

    /// Notes a value whose answer never came.
    pub fn lose_sight(&mut self, partition: i32, value: Vec<u8>) {
        *self.unknown.entry((partition, value)).or_default() += 1;
    }

    /// How many values were acknowledged.
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// True when none was.
    pub fn is_empty(&self) -> bool {
        self.acknowledged.is_empty()
    }

    /// Offset after the last acknowledged one of a partition.
    pub fn end(&self, partition: i32) -> i64 {
        let last = self.acknowledged.range((partition, 0)..(partition + 1, 0)).next_back();
        last.map_or(0, |((_, offset), _)| offset + 1)
    }

    /// Holds the batches read from a partition, from its start to its end, against the journal.
    ///
    /// # Errors
    /// The first thing that is not as promised.
    pub fn check(&self, partition: i32, batches: &[u8]) -> Result<(), String> {
        let mut expected_offset = 0;
        let mut found = BTreeMap::new();
        for batch in Batches::new(batches) {
            let batch = batch.map_err(|error| format!("partition {partition}: {error}"))?;
            batch.verify_crc().map_err(|error| format!("partition {partition}: {error}"))?;
            let mut buffer = DecompressBuffer::new(1 << 20);
            for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset != expected_offset {
                    return Err(format!(
                        "partition {partition}: offset {} after {expected_offset}",
                        record.offset
                    ));
                }
                expected_offset += 1;
                found.insert(record.offset, record.value.unwrap_or_default().to_vec());
            }
        }
        for ((_, offset), value) in self.acknowledged.range((partition, 0)..(partition + 1, 0)) {
            match found.remove(offset) {
                Some(read) if read == *value => {}
                Some(read) => {
                    return Err(format!("partition {partition} offset {offset}: {read:?}, not {value:?}"));
                }
                None => {
                    return Err(format!(
                        "partition {partition} offset {offset} was acknowledged and is gone"
                    ));
                }
            }
        }
        for (offset, value) in found {
            if !self.unknown.contains_key(&(partition, value.clone())) {
                return Err(format!("partition {partition} offset {offset}: {value:?} was never sent there"));
            }
        }
        Ok(())
    }
}
