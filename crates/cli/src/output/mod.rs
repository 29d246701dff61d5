//! What commands print: tables for people, JSON for programs, numbers and times in readable form.
//!
//! Data goes to standard output, all else to standard error. A reader that goes away (`| head`) ends the
//! command quietly.

mod human;
mod progress;
mod table;

use std::fmt;
use std::io::{self, Write};

use clap::ValueEnum;
use client::io_text;
use serde::Serialize;

pub(crate) use human::{bytes, count, counted, duration, rate, timestamp};
pub(crate) use progress::{InputProgress, counting, towards};
pub(crate) use table::{Align, Table};

use crate::failure::{Failure, Outcome};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    #[default]
    Table,
    // Names and types in it keep their meaning, because scripts rely on them.
    Json,
}

/// Prints a value as JSON, one line per nested level.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).expect("our values have string keys and no failing part");
    line(&text)
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    written(writeln!(out, "{text}"))
}

/// Prints a line to standard error. Where that cannot be written to, nobody can be told so.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Turns the failure of a write to standard output into that of the command; a reader that went away is
/// the ordinary end of a pipeline.
pub(crate) fn written(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::new(format!("standard output: {}", io_text(&error)))),
    }
}
