//! The two small files that say what a log directory is and how its last life ended.
//!
//! `storage.properties` is written when the directory is made, and once more when a cluster claims it. `life` is replaced
//! when a life begins, when it fails and when it ends cleanly; a life that crashes leaves it as "not clean". Both are
//! lines of `key=value`.

use std::io;
use std::path::Path;

use base::env::Env;
use base::ids::{SegmentId, StorageId, Uuid};

use crate::error::StorageError;
use crate::layout::Layout;

/// Version of the layout and of every file of ours in it.
const FORMAT_VERSION: &str = "1";
/// Both files are shorter than this, bytes.
const FILE_BYTES_MAX: usize = 4096;

/// A life of a storage: from opening to shutdown or crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Boot of the machine; empty when there was no life yet.
    pub(crate) boot: String,
    /// It ended cleanly.
    pub(crate) clean: bool,
    /// A write or sync failed in it, or in one before it whose tails it did not all write anew. The page cache may
    /// then show what the disk does not hold and no sync writes any more.
    pub(crate) failed: bool,
    /// What may be missing.
    pub(crate) doubt: Doubt,
}

impl Life {
    /// What may be missing in the life after this one, which began in `boot`.
    pub(crate) fn doubt_in(&self, boot: &str) -> Doubt {
        let power_went = !self.clean && !self.boot.is_empty() && self.boot != boot;
        Doubt { power_lost: self.doubt.power_lost || power_went, ..self.doubt }
    }
}

/// Whether what was written and not synced may be missing. It stays when lives end cleanly after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The power went, and nobody has said yet which segments there were.
    pub(crate) power_lost: bool,
    /// Of segments up to this one something may be missing.
    pub(crate) up_to: Option<SegmentId>,
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value.trim())
}

/// Reads the storage id, or makes a new storage of the directory.
pub(crate) fn read_or_format(env: &Env, layout: &Layout) -> Result<StorageId, StorageError> {
    let root = layout.root();
    let unusable = |reason: String| Err(StorageError::unusable(root, reason));
    if env.disk.exists(&layout.kafka_properties()) {
        return unusable(
            "it is a log directory of Apache Kafka (meta.properties is there); choose an empty one".into(),
        );
    }
    let path = layout.properties();
    if !env.disk.exists(&path) {
        if env.disk.exists(&layout.topics()) {
            return unusable(
                "it holds topics but no storage.properties; put that file back, or move the directory away"
                    .into(),
            );
        }
        return format(env, layout);
    }
    let bytes = env.disk.read(&path, FILE_BYTES_MAX);
    let bytes = bytes.map_err(|error| StorageError::io("read", &path, error))?;
    let text = String::from_utf8_lossy(&bytes);
    match value(&text, "format") {
        Some(FORMAT_VERSION) => {}
        Some(version) => {
            return unusable(format!(
                "it has format {version}, this version of Vltava reads format {FORMAT_VERSION}; \
                 use the version that wrote it"
            ));
        }
        None => return unusable("its storage.properties names no format; restore that file".into()),
    }
    match value(&text, "storage.id").map(str::parse) {
        Some(Ok(id)) => Ok(id),
        _ => unusable("its storage.properties names no storage.id; restore that file".into()),
    }
}

fn format(env: &Env, layout: &Layout) -> Result<StorageId, StorageError> {
    let id = env.random_uuid();
    let text = format!(
        "# A log directory of Vltava. Made by it, not to be edited.\nformat={FORMAT_VERSION}\nstorage.id={id}\n"
    );
    let path = layout.properties();
    let written = env.disk.replace(&path, text.as_bytes());
    written
        .and_then(|()| sync_ancestors(env, layout.root()))
        .map_err(|error| StorageError::io("write", &path, error))?;
    Ok(id)
}

/// Notes the cluster the directory belongs to, once.
pub(crate) fn claim(env: &Env, layout: &Layout, cluster_id: Uuid) -> Result<(), StorageError> {
    let path = layout.properties();
    let bytes = env.disk.read(&path, FILE_BYTES_MAX);
    let bytes = bytes.map_err(|error| StorageError::io("read", &path, error))?;
    let text = String::from_utf8_lossy(&bytes);
    match value(&text, "cluster.id") {
        Some(owner) if owner == cluster_id.to_string() => Ok(()),
        Some(owner) => Err(StorageError::unusable(
            layout.root(),
            format!(
                "it belongs to cluster {owner}, and the metadata is of cluster {cluster_id}: bring the metadata \
                 directory back that belongs to it, or name another log directory"
            ),
        )),
        None => {
            let text = format!("{}\ncluster.id={cluster_id}\n", text.trim_end());
            let written = env.disk.replace(&path, text.as_bytes());
            written.map_err(|error| StorageError::io("write", &path, error))
        }
    }
}

/// Makes the directory's own name durable, with those above it that may have been made along with it.
fn sync_ancestors(env: &Env, root: &Path) -> io::Result<()> {
    for ancestor in root.ancestors().skip(1) {
        let dir = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match env.disk.sync_dir(dir) {
            // A directory we may not even list was not made by us.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How the life before this one ended.
pub(crate) fn read_life(env: &Env, layout: &Layout) -> Result<Life, StorageError> {
    let path = layout.life();
    if !env.disk.exists(&path) {
        // Written before the first segment: without segments there was no life yet.
        let unused = env.disk.read_dir(&layout.topics()).is_ok_and(|entries| entries.is_empty());
        let boot = if unused { "" } else { "unknown" };
        return Ok(Life { boot: boot.to_owned(), clean: unused, failed: false, doubt: Doubt::default() });
    }
    let bytes = env.disk.read(&path, FILE_BYTES_MAX);
    let bytes = bytes.map_err(|error| StorageError::io("read", &path, error))?;
    let text = String::from_utf8_lossy(&bytes);
    let boot = value(&text, "boot.id").unwrap_or("unknown").to_owned();
    let is_true = |key| value(&text, key) == Some("true");
    let up_to = value(&text, "doubtful.to").and_then(|number| number.parse().ok()).map(SegmentId);
    let doubt = Doubt { power_lost: is_true("power.lost"), up_to };
    Ok(Life { boot, clean: is_true("clean"), failed: is_true("failed"), doubt })
}

/// Notes a life's beginning or end, durably.
pub(crate) fn write_life(env: &Env, layout: &Layout, life: &Life) -> Result<(), StorageError> {
    let mut text = format!("boot.id={}\nclean={}\nfailed={}\n", life.boot, life.clean, life.failed);
    if life.doubt.power_lost {
        text.push_str("power.lost=true\n");
    }
    if let Some(up_to) = life.doubt.up_to {
        text.push_str(&format!("doubtful.to={up_to}\n"));
    }
    let path = layout.life();
    env.disk.replace(&path, text.as_bytes()).map_err(|error| StorageError::io("write", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_the_first_cluster_that_claims_it() {
        let env = Env::sim(1);
        let layout = Layout::new(Path::new("/log"));
        env.disk.create_dir_all(layout.root()).unwrap();
        let id = read_or_format(&env, &layout).unwrap();
        let (ours, theirs) = (Uuid([1; 16]), Uuid([2; 16]));
        claim(&env, &layout, ours).unwrap();
        claim(&env, &layout, ours).unwrap();
        let refused = claim(&env, &layout, theirs).unwrap_err().to_string();
        assert!(refused.contains(&ours.to_string()) && refused.contains(&theirs.to_string()), "{refused}");
        assert_eq!(read_or_format(&env, &layout).unwrap(), id);
    }
}
