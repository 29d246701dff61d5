//! Completion of the command line in shells: commands, options, and values such as topics and keys.
//!
//! The script that a shell sources (`vltava completion SHELL`) calls the binary back with the words typed
//! so far and [`VARIABLE`] in its environment. Then nothing but candidates is printed, never an error:
//! whoever types has a half-written line before them. Names come from a broker, if one answers soon;
//! everything else comes from tables that are compiled in.

mod names;
mod shells;
mod values;

#[cfg(test)]
mod tests;

use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, Elvish, Fish, Powershell, Shells};

pub(crate) use names::{cat_operands, groups, topics};
pub(crate) use values::{
    appended, broker_assignments, codecs, directories, files, levels, offsets, positions, properties,
    topic_assignments, topic_keys,
};

use crate::arguments::Arguments;
use crate::failure::Outcome;
use crate::output;

/// Names the shell that asks, in the environment of the call back.
const VARIABLE: &str = "VLTAVA_COMPLETE";
/// What is completed.
const PROGRAM: &str = "vltava";
/// The shells. Bash and zsh have scripts of our own, the others those of clap.
const SHELLS: &Shells<'static> = &Shells(&[&shells::Bash, &Elvish, &Fish, &Powershell, &shells::Zsh]);

/// Answers a shell that asks for candidates; false when none asks.
pub(crate) fn answer() -> bool {
    let directory = std::env::current_dir().ok();
    let complete = CompleteEnv::with_factory(Arguments::command).var(VARIABLE).shells(Shells(SHELLS.0));
    // A shell that asked and got no answer is told nothing: it is in the midst of a line.
    !matches!(complete.try_complete(std::env::args_os(), directory.as_deref()), Ok(false))
}

/// Prints the script that a shell sources.
pub(crate) fn script(shell: clap_complete::Shell) -> Outcome {
    let shell = SHELLS.completer(&shell.to_string()).expect("every shell that can be named is listed");
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, PROGRAM, PROGRAM, &own_path(), &mut script)
        .expect("writing to memory does not fail");
    output::line(String::from_utf8_lossy(&script).trim())
}

/// How a shell calls this binary back: by its name where it was found by its name, else by its whole path.
fn own_path() -> String {
    let called = std::env::args_os().next().unwrap_or_else(|| PROGRAM.into());
    let path = std::path::Path::new(&called);
    match path.components().count() {
        0 | 1 => called.to_string_lossy().into_owned(),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned(),
    }
}
