//! The command line: what may be said, with the words of `--help`.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::output::Form;

/// The variable that names the brokers.
pub(crate) const BOOTSTRAP_VARIABLE: &str = "VLTAVA_BOOTSTRAP";
/// The brokers when none are named.
pub(crate) const USUAL_BOOTSTRAP: &str = "127.0.0.1:9092";
/// How long things are tried unless the user says it.
const USUAL_PATIENCE: Duration = Duration::from_secs(15);

/// A streaming platform that speaks the Kafka protocol: the server and its tools in one binary.
#[derive(Debug, Parser)]
#[command(name = "vltava", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 the command line is wrong.")]
pub(crate) struct Arguments {
    /// What to log, as in RUST_LOG: error, warn, info, debug, trace, or parts such as broker=debug
    #[arg(long, global = true, value_name = "FILTER", add = crate::completion::levels())]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a broker; without arguments on 127.0.0.1:9092 with its data in ./vltava-data
    Serve(crate::serve::ServeArguments),
    /// Start a broker, send a file through it line by line, read it back and compare
    Quickstart(crate::quickstart::QuickstartArguments),
    /// For developers: a cluster of several nodes on this machine
    Dev(crate::dev::DevArguments),
    /// Topics: create, list, describe, delete, alter, config, produce, consume, offsets, trim
    Topic(crate::topic::TopicArguments),
    /// Consumer groups: list, describe, reset, delete
    Group(crate::group::GroupArguments),
    /// The cluster itself
    Cluster(crate::cluster::ClusterArguments),
    /// Load for a cluster, and what it bore: produce, latency, consume
    Bench(Box<crate::bench::BenchArguments>),
    /// Produce, consume and list with the letters and formats of kcat
    Cat(Box<crate::cat::CatArguments>),
    /// Print the completion script of a shell, as in `source <(vltava completion bash)`
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the reference that is generated from this binary
    Docs {
        /// Which part
        what: DocsPart,
    },
}

const COMPLETION_HELP: &str = "\
Source it at the start of each shell:
  bash        source <(vltava completion bash)
  zsh         source <(vltava completion zsh), after compinit
  fish        vltava completion fish | source
  elvish      eval (vltava completion elvish | slurp)
  powershell  vltava completion powershell | Out-String | Invoke-Expression

Names of topics and groups come from the brokers of `-b` or VLTAVA_BOOTSTRAP.";

impl Command {
    /// Whether the command runs a broker.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Command::Serve(_))
    }
}

/// A part of the generated reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocsPart {
    /// Which requests of the Kafka protocol are served, in which versions
    Compat,
    /// Every configuration key, of brokers and of topics
    Config,
    /// Every metric
    Metrics,
}

/// Where the cluster is, for every tool.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bootstrap {
    /// Brokers to begin at, separated by commas
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        env = BOOTSTRAP_VARIABLE,
        value_name = "HOST:PORT",
        default_value = USUAL_BOOTSTRAP,
        global = true,
        value_delimiter = ','
    )]
    pub(crate) brokers: Vec<String>,
    /// How long to try, seconds [default: 15, to write a record 120]
    #[arg(long, value_name = "SECONDS", global = true,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: Option<u32>,
}

impl Bootstrap {
    /// How long a record is tried to be written, if the user has said how long to try.
    pub(crate) fn delivery_timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// How long anything else is tried.
    pub(crate) fn patience(&self) -> Duration {
        self.delivery_timeout().unwrap_or(USUAL_PATIENCE)
    }
}

/// How results are printed, for tools that list things.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How to print: table for people, json for programs
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORM",
        hide_possible_values = true
    )]
    pub(crate) form: Form,
}

/// For verbs that destroy: without it they only show what they would do.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Do it; without this, only show what would be done
    #[arg(long)]
    pub(crate) yes: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn shared_options_stand_before_and_behind_the_verb() {
        for line in ["vltava topic -b a:1,b:2 -o json list", "vltava topic list -o json -b a:1,b:2"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).expect("a valid line");
            let Command::Topic(topic) = arguments.command else { panic!("{line}") };
            assert_eq!(topic.bootstrap.brokers, ["a:1", "b:2"]);
            assert_eq!(topic.output.form, Form::Json);
        }
    }
}
