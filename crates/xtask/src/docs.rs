//! `docs`: writes the documents that are generated from the code, or checks that they are current.
//!
//! The binary prints each one (`vltava docs NAME`), so they cannot say what the code does not.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::repository_root;

/// Document and the name under which the binary prints it.
const DOCUMENTS: &[(&str, &str)] =
    &[("docs/COMPAT.md", "compat"), ("docs/CONFIG.md", "config"), ("docs/METRICS.md", "metrics")];

/// Writes the documents; with `--check` fails when one is stale.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    let check = arguments.iter().any(|argument| argument == "--check");
    let mut stale = Vec::new();
    for (path, name) in DOCUMENTS {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["run", "--quiet", "--locked", "--package", "cli", "--", "docs", name])
            .current_dir(&root)
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("vltava docs {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let path = root.join(path);
        if fs::read(&path).ok().as_deref() == Some(&output.stdout) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
        } else {
            fs::write(&path, &output.stdout)?;
        }
    }
    if !stale.is_empty() {
        bail!("stale: {}; run `cargo xtask fix`", stale.join(", "));
    }
    Ok(())
}
