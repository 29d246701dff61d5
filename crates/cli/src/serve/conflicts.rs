//! Looks, before anything is opened, whether another process is in the way: in the log directories first,
//! then at the addresses. So the first complaint names the true cause, and all of it.
//!
//! Nothing is held afterwards: whoever comes in between is found by what is opened then.

use std::path::Path;
use std::time::Duration;

use base::config::{BrokerConfig, HostPort};
use base::env::Env;
use storage::Storage;

use super::metadata;
use crate::failure::{Failure, Outcome};

/// The key that names where HTTP is served.
const HTTP_KEY: &str = "vltava.http.listener";
/// How far the port that is proposed lies from the one that is taken.
const PORT_STEP: u16 = 100;
/// How long somebody may take to answer at an address of this machine.
const PATIENCE: Duration = Duration::from_millis(200);

/// An address the node is to listen on.
struct Wanted {
    /// The key that names it.
    key: &'static str,
    /// The listener's name, for addresses of `listeners`.
    listener: Option<String>,
    address: HostPort,
    /// Other nodes know it, so that another one cannot be chosen here alone.
    is_of_controllers: bool,
    taken: bool,
}

/// Refuses to start beside a process that holds what is needed.
pub(super) async fn refuse(env: &Env, config: &BrokerConfig) -> Outcome {
    let wanted = look(env, wanted(config)?).await;
    let taken: Vec<&Wanted> = wanted.iter().filter(|one| one.taken).collect();
    let held = held_directory(env, config).await;
    let ways_out = ways_out(env, &wanted).await;
    if let Some((dir, holder)) = held {
        let also = if taken.is_empty() { String::new() } else { format!(", and {ways_out}") };
        return Err(Failure::new(format!("{holder} serves from {dir} already")).help(format!(
            "use that one, or stop it, or give this one a directory of its own with `--data DIR`{also}"
        )));
    }
    if taken.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = taken.iter().map(|one| format!("{} ({})", one.address, one.key)).collect();
    let is = if named.len() == 1 { "is" } else { "are" };
    let port = taken[0].address.port;
    Err(Failure::new(format!(
        "another process listens already where this one is to: {} {is} taken",
        named.join(" and ")
    ))
    .help(format!("{ways_out}, or stop the other one: `ss -ltnp 'sport = :{port}'` shows which it is")))
}

/// The first log directory that somebody holds, and who.
async fn held_directory(env: &Env, config: &BrokerConfig) -> Option<(String, String)> {
    for dir in config.log_dirs() {
        let (looking, path) = (env.clone(), dir.clone());
        let holder = env.blocking(move || Storage::holder(&looking, Path::new(&path))).await;
        if let Some(holder) = holder {
            let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
            return Some((whole.display().to_string(), holder));
        }
    }
    None
}

/// All addresses; two that are the same would be told to be another process's.
fn wanted(config: &BrokerConfig) -> Outcome<Vec<Wanted>> {
    let of_controllers = config.controller_listener().filter(|_| metadata::listens_for_controllers(config));
    let clients = config.client_listeners().iter().map(|listener| (listener, false));
    let listeners = clients.chain(of_controllers.map(|listener| (listener, true)));
    let listeners = listeners.map(|(listener, is_of_controllers)| Wanted {
        key: "listeners",
        listener: Some(listener.name.clone()),
        address: listener.bind.clone(),
        is_of_controllers,
        taken: false,
    });
    let mut wanted: Vec<_> = listeners.collect();
    if let Some(address) = config.http_listener() {
        if wanted.iter().any(|other| other.address == address && address.port != 0) {
            return Err(Failure::new(format!("listeners and {HTTP_KEY} both name {address}"))
                .help("give each its own port"));
        }
        wanted.push(Wanted {
            key: HTTP_KEY,
            listener: None,
            address,
            is_of_controllers: false,
            taken: false,
        });
    }
    Ok(wanted)
}

/// Finds out which are taken.
async fn look(env: &Env, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
    for one in &mut wanted {
        one.taken = one.address.port != 0 && is_taken(env, &one.address).await;
    }
    wanted
}

/// Whether somebody answers there. To listen for a moment would be surer, and would look to whoever waits for
/// this node as if it served. What else can be wrong with an address is told by whoever opens it.
async fn is_taken(env: &Env, address: &HostPort) -> bool {
    let host = match address.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let at = |port| HostPort { host: host.to_owned(), port }.to_string();
    let answers = async {
        let own = env.network.resolve(&at(0)).await.ok()?.into_iter().next()?;
        // At an address that is not this machine's, another machine answers.
        env.network.listen(own).await.ok()?;
        env.network.connect(&at(address.port)).await.ok()
    };
    tokio::select! {
        answered = answers => answered.is_some(),
        () = env.clock.sleep(PATIENCE) => false,
    }
}

/// The options that name free ports where some are taken.
async fn ways_out(env: &Env, wanted: &[Wanted]) -> String {
    if let Some(one) = wanted.iter().find(|one| one.taken && one.is_of_controllers) {
        let port = one.address.port;
        return format!("change {port} in `listeners` and in `controller.quorum.voters` of every node");
    }
    let mut options = Vec::new();
    let mut listeners = Vec::new();
    for one in wanted {
        let address = if one.taken { free_near(env, &one.address).await } else { one.address.clone() };
        match &one.listener {
            Some(name) => listeners.push(format!("{name}://{address}")),
            None if one.taken => options.push(format!("--set {HTTP_KEY}={address}")),
            None => {}
        }
    }
    if wanted.iter().any(|one| one.taken && one.listener.is_some()) {
        options.insert(0, format!("--set listeners={}", listeners.join(",")));
    }
    format!("say {}", options.join(" "))
}

/// The address if it is free, or else one near it.
pub(super) async fn free_from(env: &Env, address: &HostPort) -> HostPort {
    if is_taken(env, address).await { free_near(env, address).await } else { address.clone() }
}

/// An address of the same host whose port is free; port 0, which lets the system choose, if none is found.
async fn free_near(env: &Env, taken: &HostPort) -> HostPort {
    let mut port = taken.port;
    while let Some(next) = port.checked_add(PORT_STEP) {
        port = next;
        let near = HostPort { host: taken.host.clone(), port };
        if !is_taken(env, &near).await {
            return near;
        }
    }
    HostPort { host: taken.host.clone(), port: 0 }
}
