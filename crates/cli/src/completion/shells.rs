//! The scripts of bash and zsh, where those of clap do not do.
//!
//! Bash takes words apart at `=` and `:`, of which addresses and configs are full; the script puts them
//! together again. Both scripts set no blank behind a candidate that wants to go on, as `key=` does.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::engine;
use clap_complete::env::EnvCompleter;

const BASH: &str = include_str!("vltava.bash");
const ZSH: &str = include_str!("vltava.zsh");

/// Bash, from version 4 on.
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        program: &str,
        path: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        out.write_all(filled(BASH, variable, program, path).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let last = words.len().saturating_sub(1);
        for candidate in engine::complete(command, words, last, directory)? {
            writeln!(out, "{}", candidate.get_value().to_string_lossy())?;
        }
        Ok(())
    }
}

/// Zsh.
pub(super) struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        "zsh"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        program: &str,
        path: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        out.write_all(filled(ZSH, variable, program, path).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let last = words.len().saturating_sub(1);
        for candidate in engine::complete(command, words, last, directory)? {
            let value = candidate.get_value().to_string_lossy();
            let sign = if value.ends_with(['=', ':', '@', '/']) { '+' } else { '.' };
            write!(out, "{sign}{}", value.replace('\\', "\\\\").replace(':', "\\:"))?;
            match candidate.get_help() {
                Some(help) => writeln!(out, ":{}", help.to_string().lines().next().unwrap_or_default())?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

fn filled(script: &str, variable: &str, program: &str, path: &str) -> String {
    script.replace("VARIABLE", variable).replace("PROGRAM", program).replace("PATH_OF_BINARY", &quoted(path))
}

/// A word for a shell of the family of sh: in quotes, in which only the quote itself means something.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_script() {
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        let script = filled(BASH, "V", "p", "/x y/p");
        assert!(
            script.contains("V=bash command '/x y/p' --") && script.contains("complete -F _p p"),
            "{script}"
        );
    }
}
