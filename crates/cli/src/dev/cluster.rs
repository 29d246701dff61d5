//! `vltava dev cluster`: several nodes on this machine, each a process of its own.
//!
//! Nothing here is special to the nodes: each is `vltava serve --config DIR/node-K/server.properties`, and can be
//! started by hand in the same way. None outlives this process, but those started by hand. What is not done: starting again what has died, because whoever kills a node wants to
//! see the others without it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::env::Env;
use clap::Args;

use super::demo;
use super::layout::{Layout, NODES_MAX, PORTS_TAKEN};
use super::process::{Process, end_text, last_words};
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::counted;
use crate::serve::Ephemeral;
use crate::signals::EndSignals;

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long nodes may take to end when they are asked to; a node gives its clients 10 s.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is told which nodes do not serve yet.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long somebody on this machine may take to answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// The file that says that a directory is in use.
const LOCK: &str = "cluster.lock";

/// Arguments of `vltava dev cluster`.
#[derive(Args, Debug)]
pub(super) struct ClusterArguments {
    /// How many nodes; of 1 to 3 all are controllers, of 4 three, of more five
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Keep the data in this directory, and go on with what is there [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR", add = completion::directories())]
    data: Option<String>,
    /// The first port for clients, on 127.0.0.1; the 29 behind it are for the cluster too [default: as before, or 9092,
    /// or the next hundred that is free]
    #[arg(long, value_name = "FIRST",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - PORTS_TAKEN)))]
    port: Option<u16>,
    /// Show a fail-over: write records, kill the node that leads, read all back, and end; with 3 nodes or more
    #[arg(long)]
    demo: bool,
    /// A configuration key for all nodes; may be given several times
    #[arg(long, value_name = "KEY=VALUE", add = completion::broker_assignments())]
    set: Vec<String>,
}

/// Where the cluster is, held for this process alone.
struct Home {
    path: PathBuf,
    is_temporary: bool,
    /// Removes a temporary one, or lets others take the directory.
    _hold: Box<dyn Send + Sync>,
}

impl Home {
    fn take(env: &Env, data: Option<&str>) -> Outcome<Home> {
        let Some(data) = data else {
            let ephemeral = Ephemeral::make(env, false)?;
            let path = ephemeral.path().to_owned();
            return Ok(Home { path, is_temporary: true, _hold: Box::new(ephemeral) });
        };
        let path = Path::new(data);
        if data.contains(',') {
            return Err(Failure::usage(format!("the path {data} has a comma, which separates paths")));
        }
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                Failure::new(format!("another `vltava dev cluster` runs in {data}"))
                    .help("end it, or name another directory")
            }
            _ => Failure::new(format!("{data}: {}", client::io_text(&error)))
                .help("name a directory that can be written with `--data DIR`"),
        };
        env.disk.create_dir_all(path).map_err(failed)?;
        let lock = env.disk.lock(&path.join(LOCK)).map_err(failed)?;
        Ok(Home { path: path.to_owned(), is_temporary: false, _hold: lock })
    }
}

/// Runs the command until the user or the system ends it.
pub(super) async fn run(arguments: ClusterArguments) -> Outcome {
    if arguments.demo && arguments.nodes < demo::NODES_MIN {
        let message = format!("--demo kills a node: it takes {} that others go on", demo::NODES_MIN);
        return Err(Failure::usage(message).help("say --nodes 3, or leave it away"));
    }
    let env = Env::os();
    let mut signals = EndSignals::listen()?;
    let home = Home::take(&env, arguments.data.as_deref())?;
    let layout = Layout::choose(&env, &home.path, arguments.nodes, arguments.port, &arguments.set).await?;
    layout.write(&env)?;
    let mut processes = Vec::new();
    for node in 1..=layout.nodes {
        // Those before are killed when one cannot be started.
        processes.push(Process::start(&layout, node)?);
    }
    let watching = async {
        wait_until_all_serve(&env, &layout, &mut processes).await?;
        if arguments.demo {
            let nodes = counted(layout.nodes.into(), "node");
            tell!("Vltava {}: {nodes} serve on this machine", env!("CARGO_PKG_VERSION"));
            return demo::run(&layout, &mut processes).await;
        }
        greet(&layout, &processes, home.is_temporary);
        watch(&env, &layout, &mut processes, home.is_temporary).await
    };
    let watched = tokio::select! {
        watched = watching => watched,
        signal = signals.next() => {
            tell!("{signal}: ending the nodes");
            Ok(())
        }
    };
    watched.and(end(&env, &mut processes, &mut signals).await)
}

/// Waits until each node takes connections of clients.
async fn wait_until_all_serve(env: &Env, layout: &Layout, processes: &mut [Process]) -> Outcome {
    let mut waiting: Vec<u16> = (1..=layout.nodes).collect();
    let mut told = env.clock.now();
    loop {
        if let Some(process) = processes.iter_mut().find_map(|process| process.ends().then_some(process)) {
            let node = process.node;
            let how = end_text(process.ended.unwrap_or_default());
            let log = layout.log_path(node);
            return Err(Failure::new(format!(
                "node {node} {how} while it started; its log, {}, ends with\n  {}",
                log.display(),
                last_words(env, layout, node)
            )));
        }
        let mut left = Vec::new();
        for node in waiting {
            let address = layout.client_address(node);
            let serves = tokio::select! {
                connected = env.network.connect(&address) => connected.is_ok(),
                () = env.clock.sleep(CONNECT_PATIENCE) => false,
            };
            left.extend((!serves).then_some(node));
        }
        if left.is_empty() {
            return Ok(());
        }
        waiting = left;
        if env.clock.now() >= told + TELL_EVERY {
            told = env.clock.now();
            for node in &waiting {
                tell!("node {node} does not serve yet; its log is {}", layout.log_path(*node).display());
            }
        }
        env.clock.sleep(LOOK_EVERY).await;
    }
}

fn greet(layout: &Layout, processes: &[Process], is_temporary: bool) {
    let nodes = counted(layout.nodes.into(), "node");
    let bootstrap = layout.bootstrap();
    let gone = if is_temporary { ", gone at the end" } else { "" };
    tell!("Vltava {}: {nodes} serve   data: {}{gone}", env!("CARGO_PKG_VERSION"), layout.dir.display());
    tell!("  bootstrap servers   {bootstrap}");
    for Process { node, id, .. } in processes {
        let (clients, http) = (layout.client_address(*node), layout.http_address(*node));
        let roles = layout.roles(*node);
        tell!("  node {node}              {clients}, console http://{http}/, process {id}, {roles}");
    }
    tell!("  logs                {}", layout.dir.join("node-*/log").display());
    tell!("  try                 vltava cluster -b {bootstrap} info");
    tell!("  end with            Ctrl-C");
}

/// Tells of each node that ends; returns, with a failure, when none is left.
async fn watch(env: &Env, layout: &Layout, processes: &mut [Process], is_temporary: bool) -> Outcome {
    loop {
        for process in processes.iter_mut() {
            if process.ends() {
                let Process { node, id, ended, .. } = process;
                let how = end_text(ended.unwrap_or_default());
                tell!("node {node} (process {id}) {how}; its log is {}", layout.log_path(*node).display());
                let file = layout.properties_path(*node);
                let end = if is_temporary { ", and end it before this command" } else { "" };
                tell!("  start it again by hand{end}: vltava serve --config {}", file.display());
            }
        }
        if processes.iter().all(|process| process.ended.is_some()) {
            return Err(Failure::new("every node has ended"));
        }
        env.clock.sleep(LOOK_EVERY).await;
    }
}

/// Ends all nodes in order; those that take too long, or longer than the user has patience, at once.
async fn end(env: &Env, processes: &mut [Process], signals: &mut EndSignals) -> Outcome {
    for process in processes.iter() {
        process.ask_to_end();
    }
    let in_order = async {
        while processes.iter_mut().any(|process| !process.ends() && process.ended.is_none()) {
            env.clock.sleep(LOOK_EVERY).await;
        }
    };
    let why = tokio::select! {
        () = in_order => None,
        () = env.clock.sleep(END_PATIENCE) => Some(format!("after {} s", END_PATIENCE.as_secs())),
        signal = signals.impatience() => Some(format!("when {signal} came again")),
    };
    let Some(why) = why else { return Ok(()) };
    let mut killed = Vec::new();
    for process in processes.iter_mut().filter(|process| process.ended.is_none()) {
        process.kill().await;
        killed.push(process.node.to_string());
    }
    let message = format!("node {} had not ended {why} and was killed", killed.join(" and "));
    Err(Failure::new(message).help("the next start recovers what was not closed"))
}
