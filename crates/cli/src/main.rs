//! The binary `vltava`: the server, and tools that speak the Kafka protocol.
//!
//! The tools know nothing of the server's insides; they work against any Kafka broker. Data goes to
//! standard output, all else to standard error.

mod arguments;
mod cat;
mod cluster;
mod connect;
mod docs;
mod failure;
mod group;
mod input;
mod moment;
mod output;
mod quickstart;
mod reading;
mod record;
mod sending;
mod serve;
mod signals;
mod telling;
mod topic;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};
use crate::failure::{Failure, Outcome};

/// What a server logs: what it does, but for what the greeting says and Raft's inner life.
const SERVER_LOG: &str = "info,openraft=error,broker::net::server=warn";
/// What a tool logs.
const TOOL_LOG: &str = "warn,openraft=error";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = start_log(&arguments).and_then(|()| run(arguments.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_quiet() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Sends the log to standard error: a server tells what it does, a tool only warns.
fn start_log(arguments: &Arguments) -> Outcome {
    let usual = if arguments.command.serves() { SERVER_LOG } else { TOOL_LOG };
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = arguments.log.clone().or(from_environment).unwrap_or_else(|| usual.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        let help = "levels are error, warn, info, debug and trace; `info,broker=debug` sets one part apart";
        Failure::usage(format!("`{text}` is no log filter: {error}")).help(help)
    })?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_env_filter(filter).init();
    Ok(())
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Completion { shell } => docs::completion(shell),
        Command::Docs { what } => docs::print(what),
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("no threads can be started: {error}")))?;
            let result = runtime.block_on(run_async(command));
            // A thread may wait for standard input; it must not hold up the end of the process.
            runtime.shutdown_background();
            result
        }
    }
}

async fn run_async(command: Command) -> Outcome {
    match command {
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::Quickstart(arguments) => quickstart::run(arguments).await,
        Command::Topic(arguments) => topic::run(arguments).await,
        Command::Group(arguments) => group::run(arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Cat(arguments) => cat::run(*arguments).await,
        Command::Completion { .. } | Command::Docs { .. } => unreachable!("they need no runtime"),
    }
}
