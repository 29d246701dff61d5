//! `readme`: runs every command block of README.md, so that the README stays true.
//!
//! A block is a fence marked `sh`; its lines run one after the other in one shell. A command that
//! serves until Ctrl-C gets one as soon as it says that it serves, and must then end with success.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::repository_root;

/// What a command that serves prints last.
const SERVING: &str = "Ctrl-C";

/// Runs the blocks in order; an argument restricts them to those that contain it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    let blocks = command_blocks(&fs::read_to_string(root.join("README.md"))?);
    let chosen: Vec<_> =
        blocks.iter().filter(|block| arguments.iter().all(|argument| block.contains(argument))).collect();
    if chosen.is_empty() {
        bail!("README.md has no such command block");
    }
    for block in chosen {
        println!("README.md: {}", block.trim_end().replace('\n', "\n           "));
        run_block(block)?;
    }
    Ok(())
}

fn run_block(block: &str) -> Result<()> {
    let script = format!("exec 2>&1; set -e; {block}");
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .current_dir(repository_root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start bash")?;
    let output = child.stdout.take().context("the output is piped")?;
    let mut interrupted = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("  {line}");
        if !interrupted && line.contains(SERVING) {
            interrupted = true;
            interrupt_children(child.id())?;
        }
    }
    let status = child.wait()?;
    // The shell reports a command ended by the interrupt as success or as 130.
    if status.success() || (interrupted && status.code() == Some(130)) {
        return Ok(());
    }
    bail!("`{}` failed: {status}", block.trim())
}

/// Sends Ctrl-C's signal to the innermost process below the shell: the one that serves.
fn interrupt_children(shell: u32) -> Result<()> {
    let mut innermost = shell.to_string();
    loop {
        let output = Command::new("pgrep").args(["-P", &innermost]).output().context("cannot start pgrep")?;
        match String::from_utf8_lossy(&output.stdout).lines().next() {
            Some(child) => innermost = child.to_owned(),
            None => break,
        }
    }
    Command::new("kill").args(["-INT", &innermost]).status().context("cannot start kill")?;
    Ok(())
}

fn command_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        match (&mut current, line.trim()) {
            (None, "```sh") => current = Some(String::new()),
            (Some(_), "```") => blocks.extend(current.take()),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shell_fences_are_commands() {
        let page = "a\n```sh\none\ntwo\n```\n```text\nno\n```\n```sh\nthree\n```\n";
        assert_eq!(command_blocks(page), ["one\ntwo\n", "three\n"]);
    }
}
