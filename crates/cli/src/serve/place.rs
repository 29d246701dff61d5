//! Where a node keeps what it knows: a directory, or a temporary one that is gone afterwards.

use std::path::{Path, PathBuf};

use base::config::{Assignment, BrokerConfig, Origin};
use base::env::Env;

use super::ephemeral::Ephemeral;
use crate::failure::{Failure, Outcome};

/// The data directory when none is named.
const USUAL_DIRECTORY: &str = "vltava-data";
/// Below the data directory: the records.
const LOG_DIRECTORY: &str = "log";
/// Below the data directory, or the first of `log.dirs`: the metadata.
const METADATA_DIRECTORY: &str = "metadata";

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A directory, or the usual one.
    Directory(Option<String>),
    /// Nothing that stays.
    Memory,
}

/// A chosen place. A temporary one is removed when this is dropped.
pub(crate) struct Place {
    data: PathBuf,
    kind: Kind,
}

enum Kind {
    /// `--data`.
    Named,
    /// No word about it.
    Usual,
    Temporary(Ephemeral),
}

impl Place {
    /// Chooses the place; makes the directory when it is a temporary one.
    pub(crate) fn choose(env: &Env, wanted: Wanted) -> Outcome<Place> {
        match wanted {
            Wanted::Directory(Some(data)) => Ok(Place { data: data.into(), kind: Kind::Named }),
            Wanted::Directory(None) => Ok(Place { data: USUAL_DIRECTORY.into(), kind: Kind::Usual }),
            Wanted::Memory => {
                let ephemeral = Ephemeral::make(env)?;
                Ok(Place { data: ephemeral.path().to_owned(), kind: Kind::Temporary(ephemeral) })
            }
        }
    }

    /// True for a place that is gone afterwards.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::Temporary(_))
    }

    /// Adds what follows from the place to the user's assignments, in front, so that the user's count.
    pub(crate) fn complete(&self, assignments: Vec<Assignment>) -> Outcome<Vec<Assignment>> {
        let names_dirs = assignments.iter().any(|it| matches!(it.key.as_str(), "log.dirs" | "log.dir"));
        let assign =
            |key: &str, value: String| Assignment { key: key.to_owned(), value, origin: Origin::CommandLine };
        let mut all = Vec::new();
        match (names_dirs, self.is_temporary()) {
            (true, true) => {
                return Err(Failure::new("log.dirs is set, but nothing is to be kept")
                    .help("leave out --memory, or log.dirs"));
            }
            (true, false) => {}
            (false, _) => {
                let dir = self.data.join(LOG_DIRECTORY).display().to_string();
                if dir.contains(',') {
                    return Err(Failure::new(format!("the path {dir} has a comma, which separates paths")));
                }
                all.push(assign("log.dirs", dir));
            }
        }
        if self.is_temporary() {
            // A power cut ends the data anyway.
            all.push(assign("vltava.durability", "page-cache".to_owned()));
        }
        all.extend(assignments);
        Ok(all)
    }

    /// The directory of the metadata; `None` keeps it in memory.
    pub(crate) fn metadata_dir(&self, config: &BrokerConfig) -> Option<PathBuf> {
        let own_log_dir = self.data.join(LOG_DIRECTORY);
        let first = config.log_dirs().first().map(Path::new);
        match &self.kind {
            Kind::Temporary(_) => None,
            Kind::Named => Some(self.data.join(METADATA_DIRECTORY)),
            Kind::Usual if first == Some(&own_log_dir) => Some(self.data.join(METADATA_DIRECTORY)),
            // Beside the records, wherever those are.
            Kind::Usual => first.map(|dir| dir.join(METADATA_DIRECTORY)),
        }
    }

    /// What to tell about the place, with the configuration that was made for it.
    pub(crate) fn text(&self, config: &BrokerConfig) -> String {
        let dirs = config.log_dirs().join(", ");
        let whole = |data: &Path| {
            // A path people can paste anywhere.
            std::path::absolute(data).unwrap_or_else(|_| data.to_owned()).display().to_string()
        };
        match &self.kind {
            Kind::Temporary(ephemeral) => {
                let what = if ephemeral.in_memory() { "in memory" } else { "temporary" };
                format!("{}, {what}: gone at the end", self.data.display())
            }
            Kind::Usual if !dirs.starts_with(&*self.data.display().to_string()) => dirs,
            _ => whole(&self.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use base::config::UnknownKeys;

    use super::*;

    fn config(place: &Place, assignments: &[(&str, &str)]) -> BrokerConfig {
        let assignment = |(key, value): &(&str, &str)| Assignment {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            origin: Origin::CommandLine,
        };
        let all = place.complete(assignments.iter().map(assignment).collect()).expect("valid");
        BrokerConfig::load(&all, UnknownKeys::Refuse).expect("valid").config
    }

    #[test]
    fn the_data_directory_holds_records_and_metadata() {
        let env = Env::os();
        let place = Place::choose(&env, Wanted::Directory(Some("/d".to_owned()))).expect("chosen");
        let plain = config(&place, &[]);
        assert_eq!(plain.log_dirs(), ["/d/log"]);
        assert_eq!(place.metadata_dir(&plain), Some("/d/metadata".into()));
        let elsewhere = config(&place, &[("log.dirs", "/a,/b")]);
        assert_eq!(elsewhere.log_dirs(), ["/a", "/b"]);
        assert_eq!(place.metadata_dir(&elsewhere), Some("/d/metadata".into()));
    }

    #[test]
    fn without_a_word_about_data_metadata_lies_beside_the_records() {
        let place = Place::choose(&Env::os(), Wanted::Directory(None)).expect("chosen");
        let plain = config(&place, &[]);
        assert_eq!(place.metadata_dir(&plain), Some("vltava-data/metadata".into()));
        let kafkas = config(&place, &[("log.dirs", "/var/lib/kafka")]);
        assert_eq!(place.metadata_dir(&kafkas), Some("/var/lib/kafka/metadata".into()));
        assert_eq!(place.text(&kafkas), "/var/lib/kafka");
    }

    #[test]
    fn a_temporary_place_is_gone_afterwards() {
        let env = Env::os();
        let place = Place::choose(&env, Wanted::Memory).expect("chosen");
        let data = place.data.clone();
        let config = config(&place, &[]);
        assert_eq!(place.metadata_dir(&config), None);
        assert_eq!(config.durability(), base::config::Durability::PageCache);
        assert!(env.disk.exists(&data));
        drop(place);
        assert!(!env.disk.exists(&data));
    }
}
