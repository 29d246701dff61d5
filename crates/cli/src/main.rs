//! The binary `vltava`: the server, and tools that speak the Kafka protocol.
//!
//! The tools know nothing of the server's insides; they work against any Kafka broker. Data goes to
//! standard output, all else to standard error.

/// Prints a line to standard error. Unlike `eprintln!` it does not end the process when that is closed or its
/// disk full: a server serves on without words.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::output::tell(format_args!($($text)*))
    };
}

mod arguments;
mod bench;
mod cat;
mod cluster;
mod completion;
mod connect;
mod dev;
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
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{Arguments, Command};
use crate::failure::{Failure, Outcome};

/// What a server logs: what it does, but for what the greeting says and Raft's inner life, which tells of each of five
/// attempts a second to reach a node that is down. The metadata store itself tells what an operator should know.
const SERVER_LOG: &str = "info,openraft=off,broker::net::server=warn";
/// What a tool logs.
const TOOL_LOG: &str = "warn,openraft=off";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if completion::answer() {
        return ExitCode::SUCCESS;
    }
    use_small_pages();
    let arguments = Arguments::parse();
    let result = start_log(&arguments).and_then(|()| run(arguments.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_quiet() => ExitCode::SUCCESS,
        Err(failure) => {
            tell!("{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Has the system give this process pages of 4 KiB alone. The allocator asks for large ones, and of those every 2 MiB in
/// which one byte is in use count whole: an idle broker took 24 MB with them and takes 12 MB without.
fn use_small_pages() {
    // A kernel that refuses has none.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Sends the log to standard error: a server tells what it does, a tool only warns.
fn start_log(arguments: &Arguments) -> Outcome {
    let usual = if arguments.command.serves() { SERVER_LOG } else { TOOL_LOG };
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = arguments.log.clone().or(from_environment).unwrap_or_else(|| usual.to_owned());
    let help = "levels are error, warn, info, debug and trace; `info,broker=debug` sets one part apart";
    let no_filter = |why: String| Failure::usage(format!("`{text}` is no log filter: {why}")).help(help);
    // A word alone would be the name of a part, of which everything is logged, and of others nothing.
    let is_level = |word: &str| word.contains('=') || word.trim().parse::<LevelFilter>().is_ok();
    if let Some(word) = arguments.log.iter().flat_map(|text| text.split(',')).find(|word| !is_level(word)) {
        return Err(no_filter(format!("`{word}` is no level")));
    }
    let filter = EnvFilter::try_new(&text).map_err(|error| no_filter(error.to_string()))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty());
    let colours = !plain && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours);
    // Its complaints about a closed standard error would go to standard error, and panic.
    log.log_internal_errors(false).with_env_filter(filter).init();
    Ok(())
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Completion { shell } => completion::script(shell),
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
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Topic(arguments) => topic::run(arguments).await,
        Command::Group(arguments) => group::run(arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Bench(arguments) => bench::run(*arguments).await,
        Command::Cat(arguments) => cat::run(*arguments).await,
        Command::Completion { .. } | Command::Docs { .. } => unreachable!("they need no runtime"),
    }
}
