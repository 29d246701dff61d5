//! Runs the scenario files under `tests/scenarios/`.
//!
//! A file is a list of blocks, separated by empty lines: comment lines, command lines, `----`, and what happens. The
//! commands are described in `support/script.rs`. `UPDATE_SCENARIOS=1 cargo test -p coordinator` writes what
//! happens into the files; read the difference before you commit it.

#![allow(clippy::disallowed_methods, reason = "the scenario files are read and, when asked, written")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::script::Script;

const RULE: &str = "----";

/// A block: comments and commands as written, and what was expected.
struct Block {
    head: Vec<String>,
    expected: String,
}

fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for part in text.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let lines = part.trim_matches('\n').lines();
        let (mut head, mut expected, mut below) = (Vec::new(), String::new(), false);
        for line in lines {
            if line == RULE {
                below = true;
            } else if below {
                expected.push_str(line);
                expected.push('\n');
            } else {
                head.push(line.to_owned());
            }
        }
        blocks.push(Block { head, expected });
    }
    blocks
}

/// The file as it should be, and the first block that differs.
fn run(text: &str) -> (String, Option<String>) {
    let mut script = Script::new();
    let mut written = Vec::new();
    let mut first_difference = None;
    for block in parse(text) {
        let commands = block.head.iter().filter(|line| !line.starts_with('#'));
        let happened: String = commands.map(|line| script.run(line)).collect();
        let head = block.head.join("\n");
        if happened != block.expected && first_difference.is_none() {
            first_difference = Some(format!("{head}\nexpected:\n{}happened:\n{happened}", block.expected));
        }
        let has_commands = block.head.iter().any(|line| !line.starts_with('#'));
        let rule = if has_commands { format!("\n{RULE}\n") } else { "\n".to_owned() };
        written.push(format!("{head}{rule}{happened}"));
    }
    (written.join("\n"), first_difference)
}

fn scenario_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&folder).expect("the folder of scenarios is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn scenarios_happen_as_written() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut differences = Vec::new();
    let files = scenario_files();
    assert!(files.len() >= 10, "only {} scenario files were found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("a scenario file can be read");
        println!("{}", file.display());
        let (written, difference) = run(&text);
        if update {
            fs::write(&file, written).expect("a scenario file can be written");
        } else if let Some(difference) = difference {
            differences.push(format!("{}:\n{difference}", file.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_wrong_expectation_is_found() {
    let (_, difference) = run("describe groups=g\n----\ndescribe g NONE Stable -/-\n");
    assert!(difference.is_some());
}
