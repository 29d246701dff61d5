//! Our own lint: what neither the compiler nor clippy knows.
//!
//! - a crate imports only what the table in `docs/ARCHITECTURE.md` allows it;
//! - a hand-written file has at most 1,000 lines and a function at most 70, unless it stands in
//!   `crates/xtask/tidy.allow`, a list that may only shrink: an entry no longer needed fails too;
//! - every source file begins with a comment that says what it is;
//! - `unsafe` stands only in files the list names.
//!
//! It reads files as text and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::repository_root;

const FILE_LINES_MAX: usize = 1_000;
const FUNCTION_LINES_MAX: usize = 70;

/// Runs every check; the error lists all findings.
pub(crate) fn run(_: &[String]) -> Result<()> {
    let root = &repository_root();
    let mut findings = Vec::new();
    check_imports(root, &mut findings)?;
    check_sources(root, &mut findings)?;
    if findings.is_empty() {
        println!("tidy: nothing found");
        return Ok(());
    }
    bail!("tidy found:\n  {}", findings.join("\n  "))
}

fn check_imports(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let allowed = import_table(&fs::read_to_string(root.join("docs/ARCHITECTURE.md"))?)?;
    for name in crate_names(root)? {
        let manifest = fs::read_to_string(root.join("crates").join(&name).join("Cargo.toml"))?;
        let Some(may) = allowed.get(&name) else {
            findings.push(format!("crate `{name}` is missing in the import table of docs/ARCHITECTURE.md"));
            continue;
        };
        for import in dependencies(&manifest).intersection(&crate_names(root)?) {
            if !may.contains(import) {
                findings.push(format!("crate `{name}` imports `{import}`, which the import table forbids"));
            }
        }
    }
    Ok(())
}

/// Reads the rows `| crate | may import | … |` that follow a header cell `may import`.
fn import_table(page: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut lines = page.lines().skip_while(|line| !line.contains("| may import |"));
    lines.next().context("docs/ARCHITECTURE.md has no table with a column `may import`")?;
    let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, imports, ..] = cells[..] else { continue };
        let imports = imports.split(',').map(|import| import.trim().to_owned()).collect();
        table.insert(name.to_owned(), imports);
    }
    let all: BTreeSet<String> = table.keys().cloned().collect();
    for imports in table.values_mut() {
        if imports.iter().any(|import| import.starts_with("all")) {
            *imports = all.clone();
        }
    }
    Ok(table)
}

fn crate_names(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Names in the `[dependencies]` section of a manifest (not the development ones).
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

fn check_sources(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let allow_path = root.join("crates/xtask/tidy.allow");
    let allow_text = fs::read_to_string(&allow_path).context("crates/xtask/tidy.allow")?;
    let allow: BTreeSet<&str> =
        allow_text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut needed = BTreeSet::new();
    let mut files = Vec::new();
    source_files(&root.join("crates"), &mut files)?;
    for path in files {
        let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&path)?;
        if is_generated(&text) {
            continue;
        }
        for (key, finding) in judge_source(&name, &text) {
            if !allow.contains(key.as_str()) {
                findings.push(finding);
            }
            needed.insert(key);
        }
    }
    for entry in allow {
        if !needed.contains(entry) {
            findings.push(format!("crates/xtask/tidy.allow: `{entry}` is no longer needed, delete the line"));
        }
    }
    Ok(())
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                source_files(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

fn is_generated(text: &str) -> bool {
    text.lines().take(3).any(|line| line.contains("generated by `cargo xtask codegen`"))
}

/// Findings of one file, each with the key that would allow it.
fn judge_source(name: &str, text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if !lines.first().is_some_and(|line| line.starts_with("//!")) && !name.contains("/fuzz/") {
        found.push((
            format!("{name} head"),
            format!("{name}: begin with a `//!` comment that says what it is"),
        ));
    }
    if lines.len() > FILE_LINES_MAX {
        let finding = format!("{name}: {} lines, at most {FILE_LINES_MAX}", lines.len());
        found.push((format!("{name} lines"), finding));
    }
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.split_whitespace().any(|word| word == "unsafe") {
            let finding = format!("{name}:{}: `unsafe` outside the named files", number + 1);
            found.push((format!("{name} unsafe"), finding));
        }
    }
    for (function, length) in long_functions(&lines) {
        let finding =
            format!("{name}: function `{function}` has {length} lines, at most {FUNCTION_LINES_MAX}");
        found.push((format!("{name} {function}"), finding));
    }
    found
}

/// Functions beyond the limit. Relies on rustfmt: a body ends at a brace with the indent of `fn`.
fn long_functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closes = |candidate: &&str| {
            candidate.trim_end() == format!("{}}}", " ".repeat(indent))
                || (candidate.len() - candidate.trim_start().len() == indent
                    && candidate.trim_end().ends_with(';'))
        };
        if line.trim_end().ends_with(['}', ';']) {
            continue;
        }
        if let Some(length) = lines[start + 1..].iter().position(closes) {
            let length = length + 2;
            if length > FUNCTION_LINES_MAX {
                found.push((name.to_owned(), length));
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        let word = rest.split([' ', '(', '<']).next()?;
        match word {
            "fn" => {
                let name = rest["fn".len()..].trim_start();
                return name.split(['(', '<']).next().filter(|name| !name.is_empty());
            }
            "pub" if rest.starts_with("pub(") => rest = rest.split_once(')')?.1.trim_start(),
            "pub" | "async" | "const" | "unsafe" | "extern" => rest = rest[word.len()..].trim_start(),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_import_table_is_read() {
        let page = "x\n| crate | may import | must not |\n|---|---|---|\n| base | – | y |\n| cli | all but sim | – |\n| wire | base | z |\n\nend";
        let table = import_table(page).unwrap();
        assert!(table["wire"].contains("base") && !table["wire"].contains("cli"));
        assert!(table["cli"].contains("wire"));
    }

    #[test]
    fn only_the_dependencies_section_counts() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nbase.workspace = true\nwire = \"1\"\n[dev-dependencies]\nsim = \"1\"\n";
        assert_eq!(dependencies(manifest), ["base", "wire"].map(String::from).into());
    }

    #[test]
    fn long_functions_are_found_by_name() {
        let mut text = vec!["//! x", "    pub(crate) async fn long<T>(a: T) {"];
        text.extend(std::iter::repeat_n("        work();", 69));
        text.push("    }");
        assert_eq!(long_functions(&text), [("long".to_owned(), 71)]);
        text.remove(3);
        assert!(long_functions(&text).is_empty());
    }

    #[test]
    fn a_file_needs_a_head_and_unsafe_needs_leave() {
        let found = judge_source("a.rs", concat!("fn x() { uns", "afe { y() } }\n"));
        let keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a.rs head", "a.rs unsafe"]);
    }
}
