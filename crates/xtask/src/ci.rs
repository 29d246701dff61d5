//! `check`: everything that needs no test run; `test`: the tests; `ci`: both.
//!
//! They only read the tree (build output aside). `fix` is the one that writes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{codegen, docs, fuzz, guards, repository_root, tidy};

/// Names Kafka's jars for the test that lets Kafka's dump tool read our segment files.
const KAFKA_LIBS: &str = "VLTAVA_KAFKA_LIBS";

/// Hold our codec and our answers against Apache Kafka's own, and what clients were told against what is there.
const COMPARISONS: [&str; 3] =
    ["tests/clients/codec/run", "tests/clients/differential/run", "tests/clients/chaos/run"];

/// The tests of the real process, which no plain run of all tests includes. Named in the whole workspace, because for one
/// package its dependencies would be built anew with fewer features.
const PROCESS_TESTS: [&str; 3] = ["--workspace", "--test", "process"];

/// All checks, then the tests.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    checks(&[])?;
    test(arguments)
}

/// Format, lints, imports and sizes, generated code and documents.
pub(crate) fn checks(_: &[String]) -> Result<()> {
    let root = repository_root();
    cargo(&root, &["fmt", "--all", "--check"])?;
    tidy::run(&[])?;
    codegen::run(&["--check".to_owned()])?;
    for targets in [&["--workspace", "--all-targets"][..], &PROCESS_TESTS] {
        cargo(&root, &[&["clippy", "--locked"], targets, &["--", "-D", "warnings"]].concat())?;
    }
    docs::run(&["--check".to_owned()])
}

/// Workspace tests, those of the real process (a release build), some seconds of every fuzz target and what requests
/// cost, then the suites of real clients, the comparisons with Apache Kafka and real clients on brokers that fail.
/// Arguments go to `tests/clients/run`, and leave out what follows; `--no-clients` leaves out both.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    cargo(&root, &["build", "--release", "--locked", "--package", "cli"])?;
    let binary = target_folder(&root).join("release/vltava");
    // They measure: one after the other, and what they find is shown.
    let one_by_one = ["--", "--test-threads=1", "--nocapture"];
    let process = [&["test", "--locked"][..], &PROCESS_TESTS, &one_by_one].concat();
    let all = [&["test", "--workspace", "--locked"][..], &process];
    let libs = kafka_libs(&root);
    if let Err(error) = &libs {
        println!("Kafka's dump tool is not at hand: {error:#}");
    }
    for arguments in all {
        let mut tests = cargo_command(&root, arguments);
        tests.env("VLTAVA_BINARY", &binary);
        if let Ok(libs) = &libs {
            tests.env(KAFKA_LIBS, libs);
        }
        check(tests, "cargo test")?;
    }
    fuzz::run(&[])?;
    guards::run(&[])?;
    if arguments.iter().any(|argument| argument == "--no-clients") {
        return Ok(());
    }
    let mut suites = Command::new(root.join("tests/clients/run"));
    suites.args(arguments).current_dir(&root);
    check(suites, "tests/clients/run")?;
    if !arguments.is_empty() {
        return Ok(());
    }
    for comparison in COMPARISONS {
        let mut command = Command::new(root.join(comparison));
        command.current_dir(&root);
        check(command, comparison)?;
    }
    Ok(())
}

/// Formats the code and writes what is generated.
pub(crate) fn fix(_: &[String]) -> Result<()> {
    let root = repository_root();
    codegen::run(&[])?;
    cargo(&root, &["fmt", "--all"])?;
    docs::run(&[])
}

/// The folder of Kafka's jars: the one named, or one that Maven fills below `target`.
fn kafka_libs(root: &Path) -> Result<OsString> {
    if let Some(libs) = std::env::var_os(KAFKA_LIBS) {
        return Ok(libs);
    }
    let libs = target_folder(root).join("kafka-libs");
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "-f", "tests/clients/suites/java/pom.xml", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .current_dir(root);
    check(maven, "mvn")?;
    Ok(libs.into())
}

pub(crate) fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    check(cargo_command(root, arguments), &format!("cargo {}", arguments[0]))
}

pub(crate) fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    println!("cargo {}", arguments.join(" "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    command
}

/// Runs a command, and tells how long it took: what makes the gate long should show.
pub(crate) fn check(mut command: Command, name: &str) -> Result<()> {
    let began = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    println!("{name}: {} s", began.elapsed().as_secs());
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}
