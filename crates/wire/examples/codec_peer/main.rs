//! Our codec as a process, for comparison with codecs in other languages: one command a line on standard
//! input, one answer a line on standard output.
//!
//! | command | answer |
//! |---|---|
//! | `list` | `NAME MIN MAX` of every message, separated by `;` |
//! | `sample NAME VERSION SEED` | a random message: bytes in hexadecimal, a tab, the value's fields separated by `;` |
//! | `decode NAME VERSION BYTES` | the message written again, and its fields, in the same form |
//!
//! What goes wrong is answered as `error: …`. `tests/clients/codec` is the other side.

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result, bail};
use wire::message::*;
use wire::{Reader, Writer};

use crate::all::for_each_message;
use crate::dump::Dump as _;
use crate::source::{Sample as _, Source, seeded_bytes};

#[path = "../../tests/proof/all.rs"]
#[allow(unused_macros, unused_imports, reason = "the proofs use more of it")]
mod all;
mod dump;
mod dumps;
#[path = "../../tests/proof/samples.rs"]
mod samples;
#[path = "../../tests/proof/source.rs"]
mod source;

fn main() -> Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&line?).unwrap_or_else(|error| format!("error: {error:#}"));
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn answer(line: &str) -> Result<String> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["list"] => Ok(list()),
        ["sample", name, version, seed] => sample(name, version.parse()?, seed.parse()?),
        ["decode", name, version, bytes] => decode(name, version.parse()?, &unhex(bytes)?),
        _ => bail!("unknown command"),
    }
}

fn list() -> String {
    let mut names = Vec::new();
    macro_rules! name {
        ($message:ident) => {
            names.push(format!("{} {} {}", $message::NAME, $message::VERSIONS.min, $message::VERSIONS.max));
        };
    }
    for_each_message!(name);
    names.join(";")
}

/// Bytes and fields of `$value`, a message of type `$message`.
macro_rules! describe {
    ($message:ident, $value:expr, $version:expr) => {{
        let mut writer = Writer::new();
        $value.encode(&mut writer, $version)?;
        let mut fields = Vec::new();
        $value.dump("", &mut fields);
        Ok(format!("{}\t{}", dump::hex(&writer.to_vec()), fields.join(";")))
    }};
}

fn sample(name: &str, version: i16, seed: u64) -> Result<String> {
    macro_rules! try_message {
        ($message:ident) => {
            if name == $message::NAME {
                let choices = seeded_bytes(seed, 40 * (seed % 16) as usize);
                let value = $message::sample(&mut Source::new(&choices), version);
                return describe!($message, value, version);
            }
        };
    }
    for_each_message!(try_message);
    bail!("no message `{name}`")
}

fn decode(name: &str, version: i16, bytes: &[u8]) -> Result<String> {
    macro_rules! try_message {
        ($message:ident) => {
            if name == $message::NAME {
                let mut reader = Reader::new(bytes);
                let value = $message::decode(&mut reader, version)?;
                anyhow::ensure!(reader.remaining() == 0, "{} bytes left", reader.remaining());
                return describe!($message, value, version);
            }
        };
    }
    for_each_message!(try_message);
    bail!("no message `{name}`")
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    anyhow::ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "not hexadecimal");
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).context("not hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}
