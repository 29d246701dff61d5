//! Where a node keeps what it knows: a directory, or a temporary one that is gone afterwards.

use std::path::{Path, PathBuf};

use base::config::{Assignment, BrokerConfig, Origin, keys};
use base::env::Env;

use super::ephemeral::Ephemeral;
use crate::failure::{Failure, Outcome};

/// The data directory when none is named.
const USUAL_DIRECTORY: &str = "vltava-data";
/// Below the data directory: the records.
const LOG_DIRECTORY: &str = "log";
/// Below the data directory, or the first of `log.dirs`: the metadata.
const METADATA_DIRECTORY: &str = "metadata";
/// The file by which a directory of metadata is known to be in use.
const METADATA_FORMAT: &str = "format";
/// The file by which a log directory of Apache Kafka is known.
pub(super) const KAFKA_PROPERTIES: &str = "meta.properties";

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A directory, or the usual one.
    Directory(Option<String>),
    /// Nothing that stays, and in memory if possible.
    Memory,
    /// Nothing that stays, but on a disk, so that durability costs what it costs.
    Temporary,
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
        let (data, kind) = match wanted {
            Wanted::Directory(Some(data)) => (PathBuf::from(data), Kind::Named),
            Wanted::Directory(None) => (PathBuf::from(USUAL_DIRECTORY), Kind::Usual),
            Wanted::Memory | Wanted::Temporary => {
                let ephemeral = Ephemeral::make(env, wanted == Wanted::Memory)?;
                (ephemeral.path().to_owned(), Kind::Temporary(ephemeral))
            }
        };
        let entries = env.disk.read_dir(&data);
        if entries.is_err_and(|error| error.kind() == std::io::ErrorKind::NotADirectory) {
            let message = format!("{} is a file, where a directory is to be", data.display());
            return Err(
                Failure::new(message).help("name a directory with `--data DIR`; it is made if need be")
            );
        }
        if env.disk.exists(&data.join(KAFKA_PROPERTIES)) {
            let message = format!("{} is a log directory of Apache Kafka", data.display());
            return Err(Failure::new(message).help("name an empty directory with `--data DIR`"));
        }
        Ok(Place { data, kind })
    }

    /// True for a place that is gone afterwards.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::Temporary(_))
    }

    /// Adds what follows from the place to the user's assignments. `--data` counts more than a file's
    /// `log.dirs` and `metadata.log.dir`; `--set log.dirs=…` more than `--data`, which then takes the metadata alone.
    pub(crate) fn complete(&self, mut assignments: Vec<Assignment>) -> Outcome<Vec<Assignment>> {
        let names_dirs = |it: &Assignment| matches!(it.key.as_str(), "log.dirs" | "log.dir");
        let names_metadata = |it: &Assignment| it.key == keys::METADATA_LOG_DIR.name();
        let in_file =
            |it: &Assignment| (names_dirs(it) || names_metadata(it)) && matches!(it.origin, Origin::Line(_));
        if matches!(self.kind, Kind::Named | Kind::Temporary(_)) {
            for overruled in assignments.extract_if(.., |it| in_file(it)) {
                let Assignment { key, origin, .. } = overruled;
                tracing::info!(
                    "{origin}: `{key}` has no effect, because the command line says where the data is"
                );
            }
        }
        let assign =
            |key: &str, value: String| Assignment { key: key.to_owned(), value, origin: Origin::CommandLine };
        let mut all = Vec::new();
        let kept = assignments.iter().find(|it| names_dirs(it) || names_metadata(it));
        if let (true, Some(Assignment { key, .. })) = (self.is_temporary(), kept) {
            let failure = Failure::new(format!("{key} is set, but nothing is to be kept"));
            return Err(failure.help(format!("leave out --memory, or {key}")));
        }
        match assignments.iter().any(names_dirs) {
            true => {}
            false => {
                let dir = self.data.join(LOG_DIRECTORY).display().to_string();
                if dir.contains(',') {
                    return Err(Failure::new(format!("the path {dir} has a comma, which separates paths")));
                }
                all.push(assign("log.dirs", dir));
            }
        }
        if self.in_memory() {
            // A power cut ends the data anyway.
            all.push(assign("vltava.durability", "page-cache".to_owned()));
        }
        all.extend(assignments);
        Ok(all)
    }

    fn in_memory(&self) -> bool {
        matches!(&self.kind, Kind::Temporary(ephemeral) if ephemeral.in_memory())
    }

    /// The directory of the metadata; `None` keeps it in memory.
    pub(crate) fn metadata_dir(&self, env: &Env, config: &BrokerConfig) -> Option<PathBuf> {
        let own_log_dir = self.data.join(LOG_DIRECTORY);
        let own = self.data.join(METADATA_DIRECTORY);
        let below = |dir: &str| Path::new(dir).join(METADATA_DIRECTORY);
        let named = config.get(keys::METADATA_LOG_DIR).filter(|dir| !dir.is_empty()).map(below);
        let usual = match &self.kind {
            Kind::Temporary(_) => return None,
            Kind::Named => vec![own],
            Kind::Usual if config.log_dirs().first().map(Path::new) == Some(&own_log_dir) => vec![own],
            // Beside the records, wherever those are.
            Kind::Usual => config.log_dirs().iter().map(|dir| below(dir)).collect(),
        };
        // Where it is already, should the order of the directories have changed.
        let in_use = |dir: &&PathBuf| env.disk.exists(&dir.join(METADATA_FORMAT));
        let mut all = named.iter().chain(&usual);
        let found = all.clone().find(in_use).or_else(|| all.next()).cloned();
        if let (Some(named), Some(found)) = (&named, &found)
            && named != found
        {
            tracing::info!(directory = %found.display(), "the metadata stays where it is; metadata.log.dir is for new ones");
        }
        found
    }

    /// Where metadata lies for as long as the place is there, when it cannot be in memory.
    pub(crate) fn temporary_metadata_dir(&self) -> PathBuf {
        self.data.join(METADATA_DIRECTORY)
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
        assert_eq!(place.metadata_dir(&env, &plain), Some("/d/metadata".into()));
        let elsewhere = config(&place, &[("log.dirs", "/a,/b")]);
        assert_eq!(elsewhere.log_dirs(), ["/a", "/b"]);
        assert_eq!(place.metadata_dir(&env, &elsewhere), Some("/d/metadata".into()));
    }

    #[test]
    fn the_directory_named_counts_more_than_the_file() {
        let in_file = || {
            let (key, value) = ("log.dirs".to_owned(), "/var/lib/kafka".to_owned());
            vec![Assignment { key, value, origin: Origin::Line(7) }]
        };
        let dirs = |wanted| {
            let place = Place::choose(&Env::os(), wanted).expect("chosen");
            let all = place.complete(in_file()).expect("valid");
            let config = BrokerConfig::load(&all, UnknownKeys::Refuse).expect("valid").config;
            config.log_dirs().to_vec()
        };
        assert_eq!(dirs(Wanted::Directory(Some("/d".to_owned()))), ["/d/log"]);
        assert_eq!(dirs(Wanted::Directory(None)), ["/var/lib/kafka"]);
        assert!(dirs(Wanted::Memory)[0].ends_with("/log"));
    }

    #[test]
    fn metadata_stays_where_it_is_when_the_order_of_directories_changes() {
        let env = Env::os();
        let home = Place::choose(&env, Wanted::Temporary).expect("chosen");
        let dir = |name: &str| home.data.join(name).display().to_string();
        env.disk.create_dir_all(&home.data.join("b/metadata")).expect("a directory");
        env.disk.replace(&home.data.join("b/metadata/format"), b"x").expect("a file");
        let place = Place::choose(&env, Wanted::Directory(None)).expect("chosen");
        let config = config(&place, &[("log.dirs", &format!("{},{}", dir("a"), dir("b")))]);
        assert_eq!(place.metadata_dir(&env, &config), Some(home.data.join("b/metadata")));
    }

    #[test]
    fn the_metadata_has_a_directory_of_its_own_where_one_is_named() {
        let env = Env::os();
        let home = Place::choose(&env, Wanted::Temporary).expect("chosen");
        let dir = |name: &str| home.data.join(name).display().to_string();
        let place = Place::choose(&env, Wanted::Directory(None)).expect("chosen");
        let config = config(&place, &[("log.dirs", &dir("a")), ("metadata.log.dir", &dir("m"))]);
        assert_eq!(place.metadata_dir(&env, &config), Some(home.data.join("m/metadata")));
        // What was begun beside the records goes on there.
        env.disk.create_dir_all(&home.data.join("a/metadata")).expect("a directory");
        env.disk.replace(&home.data.join("a/metadata/format"), b"x").expect("a file");
        assert_eq!(place.metadata_dir(&env, &config), Some(home.data.join("a/metadata")));
        let in_file = || {
            let (key, value) = ("metadata.log.dir".to_owned(), dir("m"));
            vec![Assignment { key, value, origin: Origin::Line(7) }]
        };
        let named = Place::choose(&env, Wanted::Directory(Some("/d".to_owned()))).expect("chosen");
        let all = named.complete(in_file()).expect("valid");
        let loaded = BrokerConfig::load(&all, UnknownKeys::Refuse).expect("valid").config;
        assert_eq!(named.metadata_dir(&env, &loaded), Some("/d/metadata".into()));
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let env = Env::os();
        let home = Place::choose(&env, Wanted::Temporary).expect("chosen");
        let file = home.data.join("file");
        env.disk.replace(&file, b"x").expect("a file");
        let refused = Place::choose(&env, Wanted::Directory(Some(file.display().to_string())));
        let text = refused.err().expect("it is refused").to_string();
        assert!(text.contains("is a file") && text.contains("--data DIR"), "{text}");
    }

    #[test]
    fn a_directory_of_kafka_is_refused() {
        let env = Env::os();
        let home = Place::choose(&env, Wanted::Temporary).expect("chosen");
        env.disk.replace(&home.data.join(KAFKA_PROPERTIES), b"version=1").expect("a file");
        let wanted = Wanted::Directory(Some(home.data.display().to_string()));
        assert!(Place::choose(&env, wanted).is_err());
    }

    #[test]
    fn without_a_word_about_data_metadata_lies_beside_the_records() {
        let env = Env::os();
        let place = Place::choose(&env, Wanted::Directory(None)).expect("chosen");
        let plain = config(&place, &[]);
        assert_eq!(place.metadata_dir(&env, &plain), Some("vltava-data/metadata".into()));
        let kafkas = config(&place, &[("log.dirs", "/var/lib/kafka")]);
        assert_eq!(place.metadata_dir(&env, &kafkas), Some("/var/lib/kafka/metadata".into()));
        assert_eq!(place.text(&kafkas), "/var/lib/kafka");
    }

    #[test]
    fn a_temporary_place_is_gone_afterwards() {
        let env = Env::os();
        let place = Place::choose(&env, Wanted::Memory).expect("chosen");
        let data = place.data.clone();
        let config = config(&place, &[]);
        assert_eq!(place.metadata_dir(&env, &config), None);
        assert_eq!(config.durability(), base::config::Durability::PageCache);
        assert!(env.disk.exists(&data));
        drop(place);
        assert!(!env.disk.exists(&data));
    }
}
