//! One-command chores of the repository, run as `cargo xtask <command>`.
//!
//! Each command is a module with a `run(arguments)` function and one line in [`COMMANDS`].

#![allow(clippy::disallowed_methods, reason = "chores read and write the tree they stand in")]

use std::path::PathBuf;
use std::process::ExitCode;

mod ci;
mod codegen;
mod docs;
mod fuzz;
mod guards;
mod readme;
mod tidy;

/// Name, usage and entry point of one subcommand.
struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

const COMMANDS: &[Command] = &[
    Command { name: "ci", usage: "ci                  every check, then the tests", run: ci::run },
    Command {
        name: "check",
        usage: "check               format, lints, tidy, and whether what is generated is current",
        run: ci::checks,
    },
    Command {
        name: "test",
        usage: "test [ARGUMENT]...  workspace tests, then the suites of real clients (arguments go to tests/clients/run;\n\
                \x20                     --no-clients leaves them out)",
        run: ci::test,
    },
    Command { name: "tidy", usage: "tidy                imports, file sizes, heads, unsafe", run: tidy::run },
    Command {
        name: "codegen",
        usage: "codegen [--check]   generate crates/wire from crates/wire/schema, or fail if it is stale",
        run: codegen::run,
    },
    Command {
        name: "docs",
        usage: "docs [--check]      write the documents generated from the code, or fail if one is stale",
        run: docs::run,
    },
    Command {
        name: "fuzz",
        usage: "fuzz [SECONDS [TARGET]...]\n\
                \x20                     build the fuzz targets of fuzz/ and run them, so many seconds each",
        run: fuzz::run,
    },
    Command {
        name: "guards",
        usage: "guards [--accept | NAME...]\n\
                \x20                     count what requests cost and compare with bench/guards.txt, or write that",
        run: guards::run,
    },
    Command {
        name: "readme",
        usage: "readme [TEXT]       run the command blocks of README.md",
        run: readme::run,
    },
    Command { name: "fix", usage: "fix                 format, and write what is generated", run: ci::fix },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = arguments.first().and_then(|name| COMMANDS.iter().find(|command| command.name == name));
    let Some(command) = command else {
        eprintln!("usage: cargo xtask <command>");
        for command in COMMANDS {
            eprintln!("  {}", command.usage);
        }
        return ExitCode::from(2);
    };
    match (command.run)(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", command.name);
            ExitCode::FAILURE
        }
    }
}

/// Root of the repository, from the place this package was built at.
fn repository_root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
