//! Which node of which cluster a process is that is no controller: noted in its data directory, so that it comes back as
//! the same one, and never as one of another cluster.
//!
//! The file has the form and the names of Kafka's `meta.properties`. A controller has its number in its metadata log.

use std::path::PathBuf;

use ::metadata::{MetadataStore, allocate_node_id};
use base::config::{BrokerConfig, HostPort, parse_properties};
use base::env::Env;
use base::ids::BrokerId;

use super::Place;
use crate::failure::{Failure, Outcome};

const FILE: &str = "node.properties";
/// Longest file, bytes.
const BYTES_MAX: usize = 4_096;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    node: BrokerId,
    /// As text.
    cluster: String,
}

/// The configuration with the number of this node: the one in its directory, or else the one that is configured, or else
/// one that the controllers give it, for which they are waited for.
pub(super) async fn complete(env: &Env, config: BrokerConfig, place: &Place) -> Outcome<BrokerConfig> {
    if config.roles().controller {
        return Ok(config);
    }
    if let Some((path, known)) = read(env, &config, place)? {
        if config.node_is_set() && config.node() != known.node {
            let message =
                format!("{} belongs to node.id {}, not {}", path.display(), known.node, config.node());
            return Err(Failure::new(message)
                .help(format!("say node.id={}, or name another directory with `--data DIR`", known.node)));
        }
        return Ok(config.with_node(known.node));
    }
    if config.node_is_set() {
        return Ok(config);
    }
    let controllers: Vec<_> = config.controller_bootstrap().iter().map(HostPort::to_string).collect();
    tracing::info!("a number for this new node is asked for: {}", controllers.join(", "));
    let node = allocate_node_id(env.clone(), controllers).await;
    let node = node.map_err(|error| Failure::new(error.to_string()))?;
    tracing::info!(node = node.0, "the controllers gave this node a number");
    Ok(config.with_node(node))
}

/// Notes which node of which cluster this is, once that is known; refuses the metadata of another cluster.
pub(super) fn note(env: &Env, config: &BrokerConfig, place: &Place, metadata: &dyn MetadataStore) -> Outcome {
    if config.roles().controller {
        return Ok(());
    }
    let cluster = metadata.image().cluster_id.to_string();
    if let Some((path, known)) = read(env, config, place)? {
        if known.cluster == cluster {
            return Ok(());
        }
        let message = format!(
            "{} belongs to a node of cluster {}, and the controllers are those of cluster {cluster}",
            path.display(),
            known.cluster
        );
        return Err(Failure::new(message)
            .help("name the controllers of its own cluster, or another directory with `--data DIR`"));
    }
    let Some(dir) = place.metadata_dir(env, config) else { return Ok(()) };
    let path = dir.join(FILE);
    let text = format!("node.id={}\ncluster.id={cluster}\n", config.node());
    let written = env.disk.create_dir_all(&dir).and_then(|()| env.disk.replace(&path, text.as_bytes()));
    written.map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}", path.display()))
            .help("may this user write there? `--data DIR` names another directory")
    })
}

fn read(env: &Env, config: &BrokerConfig, place: &Place) -> Outcome<Option<(PathBuf, Identity)>> {
    let Some(dir) = place.metadata_dir(env, config) else { return Ok(None) };
    let path = dir.join(FILE);
    if !env.disk.exists(&path) {
        return Ok(None);
    }
    let bytes = env
        .disk
        .read(&path, BYTES_MAX)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    match parse(&bytes) {
        Some(identity) => Ok(Some((path, identity))),
        None => Err(Failure::new(format!("{} does not say which node this is", path.display()))
            .help("restore it from a copy: lines node.id=NUMBER and cluster.id=ID, as the node had them")),
    }
}

fn parse(bytes: &[u8]) -> Option<Identity> {
    let properties = parse_properties(std::str::from_utf8(bytes).ok()?).ok()?;
    let value = |key: &str| Some(properties.iter().find(|line| line.key == key)?.value.clone());
    let node = value("node.id")?.parse().ok().filter(|node| *node >= 0)?;
    Some(Identity { node: BrokerId(node), cluster: value("cluster.id")? })
}

/// Refuses to join a cluster on another machine as a broker that listens to this one alone: no other node could reach it.
pub(super) fn refuse_unreachable(config: &BrokerConfig, is_loopback: impl Fn(&str) -> bool) -> Outcome {
    let far = config.controller_bootstrap().into_iter().find(|address| !is_loopback(&address.host));
    let own = config.inter_broker_listener().filter(|own| {
        is_loopback(&own.bind.host) && own.advertised.as_ref().is_none_or(|told| is_loopback(&told.host))
    });
    let (Some(far), Some(own)) = (far, own) else { return Ok(()) };
    Err(Failure::usage(format!(
        "the cluster is at {far}, on another machine, and could not reach this node: it listens at {}",
        own.bind
    ))
    .help(format!("say --set listeners={}://:{}, to listen to other machines", own.name, own.bind.port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_tells_node_and_cluster_or_is_refused() {
        let known = Identity { node: BrokerId(7), cluster: "abc".to_owned() };
        assert_eq!(parse(b"node.id=7\ncluster.id=abc\nmore=1\n"), Some(known));
        for bad in [&b"node.id=7\n"[..], b"cluster.id=abc\n", b"node.id=-1\ncluster.id=abc", b"\xff", b""] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
