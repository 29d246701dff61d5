//! `fuzz`: builds the fuzz targets of `fuzz/` and runs each for some seconds.
//!
//! libFuzzer, guided by coverage: the compiler's passes that count it are in stable Rust, too. Without
//! arguments every target runs shortly, from nothing and with the same seed, so that the gate tells the same each
//! time; with a number of seconds it goes on from what earlier such runs found, below `target/fuzz/corpus`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ci::{cargo_command, check, target_folder};
use crate::repository_root;

/// Time each target gets in the gate, seconds.
const GATE_SECONDS: u32 = 5;

/// What `cargo fuzz` sets, save the address sanitizer, which only nightly compilers have.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Bounds of one input: memory and time beyond them are findings.
const LIMITS: [&str; 2] = ["-rss_limit_mb=1024", "-timeout=20"];

/// Lines of a failed target's output that are shown.
const SHOWN_LINES: usize = 40;

/// Arguments: the seconds for each target, then names of targets; all of them, if none is named.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    let seconds = arguments.first().map(|text| text.parse::<u32>().context("fuzz [SECONDS [TARGET]...]"));
    let seconds = seconds.transpose()?;
    let names = targets(&fs::read_to_string(root.join("fuzz/Cargo.toml"))?);
    let chosen = arguments.get(1..).unwrap_or_default();
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(name)) {
        bail!("there is no target `{unknown}`, only {}", names.join(", "));
    }
    let names: Vec<_> = names.into_iter().filter(|name| chosen.is_empty() || chosen.contains(name)).collect();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        if seconds.is_some() || std::env::var_os("CI").is_some() {
            bail!("{compiler} is missing, which libFuzzer is built with: install a C++ compiler, as in g++");
        }
        println!("fuzz: skipped, {compiler} is missing");
        return Ok(());
    }
    let folder = target_folder(&root).join("fuzz");
    let host = host()?;
    fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))?;
    // With a target named, the flags are not for build scripts and macros.
    let mut build = cargo_command(&root, &["build", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    build.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder);
    check(build, "cargo build")?;
    let side_by_side = std::thread::available_parallelism().map_or(1, usize::from);
    for names in names.chunks(side_by_side) {
        let fuzz = |name| fuzz_one(&folder, &host, name, seconds);
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let running: Vec<_> = names.iter().map(|name| scope.spawn(move || fuzz(name))).collect();
            running.into_iter().map(|run| run.join().unwrap_or_else(|_| bail!("a bug in xtask"))).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

fn fuzz_one(folder: &Path, host: &str, name: &str, seconds: Option<u32>) -> Result<()> {
    let mut target = Command::new(folder.join(host).join("debug").join(name));
    target
        .args(LIMITS)
        // Or it would push the message out of what is shown.
        .env("RUST_BACKTRACE", "0")
        .arg(format!("-max_total_time={}", seconds.unwrap_or(GATE_SECONDS)))
        .arg(format!("-artifact_prefix={}/{name}-", folder.display()));
    if seconds.is_some() {
        let corpus = folder.join("corpus").join(name);
        fs::create_dir_all(&corpus)?;
        target.arg(corpus);
        return check(target, &format!("the fuzz target {name}"));
    }
    target.arg("-seed=1");
    let output = target.output().with_context(|| format!("cannot start the fuzz target {name}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = text.lines().collect();
    if !output.status.success() {
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("the fuzz target {name} found something ({}):\n{shown}", output.status);
    }
    println!("fuzz {name}: {}", lines.last().unwrap_or(&"it said nothing"));
    Ok(())
}

/// Names of the programs of a manifest.
fn targets(manifest: &str) -> Vec<String> {
    let programs = manifest.split("[[bin]]").skip(1);
    let name = |program: &str| Some(program.split_once("name = \"")?.1.split_once('"')?.0.to_owned());
    programs.filter_map(name).collect()
}

/// The platform this is built for, as the compiler names it.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_the_manifest_is_a_target() {
        let manifest =
            "[package]\nname = \"x\"\n[[bin]]\nname = \"a\"\npath = \"p\"\n\n[[bin]]\nname = \"b\"\n";
        assert_eq!(targets(manifest), ["a", "b"]);
    }
}
