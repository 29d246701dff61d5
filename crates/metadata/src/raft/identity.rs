//! Whose directory it is: of which node, in a log that began with which voters.
//!
//! A voter that came back with the log of another one, or with voters that never knew of each other, could answer twice
//! for one seat: such a directory is not opened. Only addresses of voters may change; the log's are not dialled.
//!
//! Directories of versions that did not write the file have the voters in their log; the file is added.

use std::collections::BTreeSet;

use base::ids::BrokerId;
use prost::Message;

use super::home::{self, FileError, Home, Kind};
use super::open::{MetadataOpenError, of_file};

const IDENTITY: &str = "identity";
/// Longest file, bytes: ten for each voter of the largest group, with much to spare.
const BYTES_MAX: usize = 4_096;

/// The content of the file.
#[derive(Clone, PartialEq, Message)]
struct IdentityRecord {
    #[prost(uint64, tag = "1")]
    node: u64,
    #[prost(uint64, repeated, tag = "2")]
    voters: Vec<u64>,
}

/// Refuses the directory of another node or of other voters; notes whose it is from now on. `logged` are the voters of
/// its log, if that began.
pub(super) fn check(
    home: &Home,
    node: BrokerId,
    voters: &BTreeSet<u64>,
    logged: Option<BTreeSet<u64>>,
) -> Result<(), MetadataOpenError> {
    let path = home.dir.join(IDENTITY);
    let disk = &*home.env.disk;
    let fail = |error| of_file(&home.dir, error);
    let bytes = home::read(disk, &path, Kind::Identity, BYTES_MAX).map_err(fail)?;
    let stored = bytes.map(|bytes| IdentityRecord::decode(&*bytes)).transpose();
    let stored = stored.map_err(|error| fail(FileError::damaged(&path, 0, error.to_string())))?;
    let is_node = |id: &u64| i64::try_from(*id) == Ok(node.0.into());
    let found = match (&stored, &logged) {
        (Some(stored), _) => (!is_node(&stored.node)).then(|| stored.node.to_string()),
        (None, Some(logged)) => (!logged.iter().any(is_node)).then(|| list(logged)),
        (None, None) => None,
    };
    if let Some(found) = found {
        return Err(MetadataOpenError::OtherNode { dir: home.dir.clone(), found, node });
    }
    if let Some(logged) = logged.filter(|logged| logged != voters) {
        let (found, asked) = (list(&logged), list(voters));
        return Err(MetadataOpenError::OtherVoters { dir: home.dir.clone(), found, asked });
    }
    let record =
        IdentityRecord { node: u64::from(node.0.unsigned_abs()), voters: voters.iter().copied().collect() };
    match stored.is_some_and(|stored| stored == record) {
        true => Ok(()),
        false => home::replace(disk, &path, Kind::Identity, &record.encode_to_vec()).map_err(fail),
    }
}

fn list(ids: &BTreeSet<u64>) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}
