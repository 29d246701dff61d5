//! `ci`: every check that needs no running server, then the tests; `test`: the tests alone.
//!
//! Both only read the tree (build output aside). `fix` is the one that writes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{codegen, docs, repository_root, tidy};

/// All checks: format, lints, imports and sizes, generated code and documents, tests.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    cargo(&root, &["fmt", "--all", "--check"])?;
    tidy::run(&[])?;
    codegen::run(&["--check".to_owned()])?;
    cargo(&root, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    docs::run(&["--check".to_owned()])?;
    test(arguments)
}

/// Workspace tests, then the suites of real clients against a release build. Arguments go to
/// `tests/clients/run`; `--no-clients` leaves those suites out.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    cargo(&root, &["test", "--workspace", "--locked"])?;
    if arguments.iter().any(|argument| argument == "--no-clients") {
        return Ok(());
    }
    cargo(&root, &["build", "--release", "--locked", "--package", "cli"])?;
    let mut suites = Command::new(root.join("tests/clients/run"));
    suites.args(arguments).current_dir(&root);
    check(suites, "tests/clients/run")
}

/// Formats the code and writes what is generated.
pub(crate) fn fix(_: &[String]) -> Result<()> {
    let root = repository_root();
    codegen::run(&[])?;
    cargo(&root, &["fmt", "--all"])?;
    docs::run(&[])
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    println!("cargo {}", arguments.join(" "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    check(command, &format!("cargo {}", arguments[0]))
}

fn check(mut command: Command, name: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}
