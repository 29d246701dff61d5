//! `guards`: counts what requests cost the broker, in instructions (under valgrind's callgrind) and in
//! allocations, and compares with the table `bench/guards.txt`.
//!
//! Counts are the same on a busy machine, so a path that became dearer shows where times would say nothing. They
//! depend on the compiler: when it is not the one the table was made with, differences are told and are no failure.
//! What counts is `crates/broker/benches/guards`. The profile of each run is kept: `callgrind_annotate
//! target/guards/profiles/produce-1.callgrind` shows where its instructions go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::ci::{cargo_command, target_folder};
use crate::repository_root;

/// The table, from the root of the repository.
const TABLE: &str = "bench/guards.txt";

const PROGRAMS: [&str; 2] = ["instructions", "allocations"];

/// What a count may exceed the table's by, %.
const MORE_PERCENT: f64 = 5.0;
/// A few allocations are counted exactly, or nearly so: the growth of a long-lived buffer is shared by all requests.
const MORE_ALLOCATIONS_PERCENT: f64 = 1.0;
const MORE_ALLOCATIONS: f64 = 0.5;
/// Below the table's count by more than this, %, the table has become too lenient.
const LESS_PERCENT: f64 = 10.0;

/// So large that copying of memory goes by instructions that count one each, on all processors alike.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What one request costs, on average.
#[derive(Clone, Debug, PartialEq)]
struct Cost {
    name: String,
    instructions: f64,
    allocations: f64,
    allocated_bytes: f64,
}

#[derive(Debug, PartialEq)]
struct Table {
    /// The compiler it was made with, and for what.
    compiler: String,
    costs: Vec<Cost>,
}

/// Arguments: names of requests, all if none is named; or `--accept`, which writes the table.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = repository_root();
    let accept = arguments.iter().any(|argument| argument == "--accept");
    if accept && arguments.len() > 1 {
        bail!("the table is written as a whole: `cargo xtask guards --accept`");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        if !arguments.is_empty() || std::env::var_os("CI").is_some() {
            bail!(
                "valgrind is missing, which counts instructions: install it, as in `apt-get install valgrind`"
            );
        }
        println!("guards: skipped, valgrind is missing");
        return Ok(());
    }
    let costs = measure_all(&root, if accept { &[] } else { arguments })?;
    let compiler = compiler()?;
    let path = root.join(TABLE);
    if accept {
        let table = Table { compiler, costs };
        fs::write(&path, table.to_text())?;
        println!("guards: {TABLE} is written");
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {TABLE}"))?;
    let table = Table::parse(&text).with_context(|| format!("{TABLE} is not a table of guards"))?;
    let verdict = table.judge(&costs, arguments.is_empty());
    for note in &verdict.notes {
        println!("guards: {note}");
    }
    if verdict.failures.is_empty() {
        return Ok(());
    }
    let failures = verdict.failures.join("\n  ");
    let way_out =
        "if that is meant to be, `cargo xtask guards --accept` writes the table, and the commit says why";
    if table.compiler != compiler {
        println!(
            "guards: not a failure, because {TABLE} is of {}, and this is {compiler}:\n  {failures}",
            table.compiler
        );
        return Ok(());
    }
    bail!("requests cost more than {TABLE} says:\n  {failures}\n{way_out}")
}

/// Builds the programs and runs the requests, as many side by side as there are processors.
fn measure_all(root: &Path, chosen: &[String]) -> Result<Vec<Cost>> {
    let programs = build(root)?;
    let list = Command::new(&programs[1]).output().context("cannot start what counts allocations")?;
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    let names: Vec<_> = names.lines().collect();
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there are no requests `{unknown}`, only {}", names.join(", "));
    }
    let names: Vec<_> =
        names.into_iter().filter(|name| chosen.is_empty() || chosen.iter().any(|c| c == name)).collect();
    let profiles = target_folder(root).join("guards/profiles");
    fs::create_dir_all(&profiles)?;
    let mut costs = Vec::new();
    let side_by_side = std::thread::available_parallelism().map_or(1, usize::from);
    for names in names.chunks(side_by_side) {
        let results: Vec<Result<Cost>> = std::thread::scope(|scope| {
            let measure = |name| measure(&programs, &profiles, name);
            let running: Vec<_> = names.iter().map(|name| scope.spawn(move || measure(name))).collect();
            running.into_iter().map(|run| run.join().unwrap_or_else(|_| bail!("a bug in xtask"))).collect()
        });
        for cost in results {
            let cost = cost?;
            println!("guards: {}", cost.to_line());
            costs.push(cost);
        }
    }
    Ok(costs)
}

/// Builds the programs; their paths, in the order of [`PROGRAMS`].
fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let arguments =
        ["build", "--profile", "guards", "--locked", "--package", "broker", "--message-format", "json"];
    let benches = PROGRAMS.iter().flat_map(|name| ["--bench", name]);
    let arguments: Vec<_> = arguments.into_iter().chain(benches).collect();
    let mut build = cargo_command(root, &arguments);
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo build")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("cargo build failed: {}", output.status);
    }
    let path = |name: &&str| {
        let found = text.lines().find_map(|line| executable(line, name));
        found.with_context(|| format!("cargo does not tell where it put `{name}`"))
    };
    PROGRAMS.iter().map(path).collect()
}

/// The path in one of cargo's messages, if it is about the benchmark of this name.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let (_, path) = message.split_once(r#""executable":""#)?;
    let is_it = message.contains(r#""kind":["bench"]"#) && message.contains(&format!(r#""name":"{name}""#));
    is_it.then(|| PathBuf::from(path.split('"').next().unwrap_or_default()))
}

/// Runs the requests of one name under callgrind, and once more to count allocations.
fn measure(programs: &[PathBuf], profiles: &Path, name: &str) -> Result<Cost> {
    let profile = profiles.join(format!("{name}.callgrind"));
    let folder = profiles.join(name);
    let mut callgrind = Command::new("valgrind");
    callgrind.args(["--tool=callgrind", "--toggle-collect=*counted*"]).env("GLIBC_TUNABLES", TUNABLES);
    callgrind.arg(format!("--callgrind-out-file={}", profile.display())).arg(&programs[0]);
    let counted = output(callgrind, name, &folder)?;
    let requests = number_before(&counted, "requests").context("the program counted no requests")?;
    let text =
        fs::read_to_string(&profile).with_context(|| format!("callgrind wrote no {}", profile.display()))?;
    let summary = text.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse::<f64>().ok());
    let instructions = summary.filter(|count| *count > 0.0).context("callgrind counted nothing")?;
    let counted = output(Command::new(&programs[1]), name, &folder)?;
    let allocations = number_before(&counted, "allocations").context("no allocations are told")?;
    let bytes = number_before(&counted, "bytes").context("no allocated bytes are told")?;
    Ok(Cost {
        name: name.to_owned(),
        instructions: instructions / requests,
        allocations: allocations / requests,
        allocated_bytes: bytes / requests,
    })
}

/// What a program prints that is told the name and an empty folder.
fn output(mut program: Command, name: &str, folder: &Path) -> Result<String> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let run = program.arg(name).arg(folder).env("RUST_BACKTRACE", "0").output();
    let run = run.with_context(|| format!("cannot start what runs {name}"))?;
    fs::remove_dir_all(folder)?;
    if !run.status.success() {
        bail!("the requests {name} failed ({}):\n{}", run.status, String::from_utf8_lossy(&run.stderr));
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// The number in front of a word.
fn number_before(text: &str, word: &str) -> Option<f64> {
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|other| *other == word)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// The compiler and what it builds for.
fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(format!("{}, {host}", text.lines().next().unwrap_or_default()))
}

/// What the comparison says.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    fn parse(text: &str) -> Result<Table> {
        let compiler = text.lines().find_map(|line| line.strip_prefix("# made with "));
        let compiler = compiler.context("no line `# made with` names the compiler")?.to_owned();
        let rows = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        Ok(Table { compiler, costs: rows.map(Cost::parse).collect::<Result<_>>()? })
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "# What one request costs the broker. `cargo xtask guards` compares, with `--accept` it writes this.\n\
             # made with {}\n# {:<22}{:>14}{:>13}{:>17}\n",
            self.compiler, "request", "instructions", "allocations", "allocated bytes"
        );
        for cost in &self.costs {
            text += &cost.to_line();
            text.push('\n');
        }
        text
    }

    /// Compares; `whole` if all requests were measured, so that none may be missing.
    fn judge(&self, costs: &[Cost], whole: bool) -> Verdict {
        let mut verdict = Verdict::default();
        for cost in costs {
            match self.costs.iter().find(|row| row.name == cost.name) {
                Some(row) => row.compare(cost, &mut verdict),
                None => verdict.failures.push(format!("{}: not in the table", cost.name)),
            }
        }
        let gone = self.costs.iter().filter(|row| !costs.iter().any(|cost| cost.name == row.name));
        if whole {
            verdict.failures.extend(gone.map(|row| format!("{}: in the table only", row.name)));
        }
        verdict
    }
}

impl Cost {
    fn parse(line: &str) -> Result<Cost> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, numbers @ ..] = &words[..] else { bail!("an empty row") };
        let numbers: Vec<f64> = numbers
            .iter()
            .map(|number| number.replace(',', "").parse().with_context(|| format!("no number: {number}")))
            .collect::<Result<_>>()?;
        let &[instructions, allocations, allocated_bytes] = &numbers[..] else {
            bail!("not a name and three numbers: {line}")
        };
        Ok(Cost { name: (*name).to_owned(), instructions, allocations, allocated_bytes })
    }

    fn to_line(&self) -> String {
        let (instructions, bytes) = (grouped(self.instructions), grouped(self.allocated_bytes));
        format!("{:<24}{instructions:>14}{:>13.1}{bytes:>17}", self.name, self.allocations)
    }

    /// Compares what was measured with this row.
    fn compare(&self, now: &Cost, verdict: &mut Verdict) {
        let figures = [
            ("instructions", self.instructions, now.instructions, MORE_PERCENT, 0.0),
            ("allocations", self.allocations, now.allocations, MORE_ALLOCATIONS_PERCENT, MORE_ALLOCATIONS),
            ("allocated bytes", self.allocated_bytes, now.allocated_bytes, MORE_PERCENT, 0.0),
        ];
        for (figure, before, now, percent, slack) in figures {
            let change = (now / before.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
            let told = format!("{}: {now:.0} {figure} instead of {before:.0}, {change:+.1} %", self.name);
            if now > before * (1.0 + percent / 100.0) + slack {
                verdict.failures.push(format!("{told}; {percent} % more are let pass"));
            } else if now < before * (1.0 - LESS_PERCENT / 100.0) - slack {
                verdict.notes.push(format!("{told}; lower the table with `cargo xtask guards --accept`"));
            }
        }
    }
}

/// A whole number with commas.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, instructions: f64, allocations: f64, allocated_bytes: f64) -> Cost {
        Cost { name: name.to_owned(), instructions, allocations, allocated_bytes }
    }

    fn table(costs: &[Cost]) -> Table {
        Table { compiler: "rustc 1.0.0, here".to_owned(), costs: costs.to_vec() }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = table(&[cost("a", 1_234_567.0, 25.1, 999.0), cost("b", 12.0, 0.0, 1_000.0)]);
        assert_eq!(Table::parse(&table.to_text()).unwrap(), table);
        assert!(table.to_text().contains(" 1,234,567 "), "{}", table.to_text());
        assert!(Table::parse("# made with x\nname 1 2\n").is_err());
    }

    #[test]
    fn only_what_is_beyond_the_tolerance_fails() {
        let table = table(&[cost("a", 1_000.0, 20.0, 100.0)]);
        let judge = |instructions, allocations, bytes| {
            let verdict = table.judge(&[cost("a", instructions, allocations, bytes)], true);
            (verdict.failures.len(), verdict.notes.len())
        };
        assert_eq!(judge(1_049.0, 20.6, 104.0), (0, 0));
        assert_eq!(judge(1_051.0, 20.0, 100.0), (1, 0));
        assert_eq!(judge(1_051.0, 21.0, 106.0), (3, 0));
        assert_eq!(judge(901.0, 18.0, 91.0), (0, 0));
        assert_eq!(judge(899.0, 17.0, 89.0), (0, 3));
    }

    #[test]
    fn requests_and_rows_must_match() {
        let table = table(&[cost("a", 1.0, 1.0, 1.0), cost("b", 1.0, 1.0, 1.0)]);
        let measured = [cost("a", 1.0, 1.0, 1.0), cost("c", 1.0, 1.0, 1.0)];
        assert_eq!(table.judge(&measured, true).failures, ["c: not in the table", "b: in the table only"]);
        assert_eq!(table.judge(&measured[..1], false), Verdict::default());
    }

    #[test]
    fn a_program_is_found_in_the_messages_of_cargo() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"kind":["bench"],"name":"x"},"executable":"/t/x-1"}"#;
        assert_eq!(executable(message, "x"), Some(PathBuf::from("/t/x-1")));
        assert_eq!(executable(message, "y"), None);
        assert_eq!(executable(&message.replace(r#""/t/x-1""#, "null"), "x"), None);
        assert_eq!(number_before("50 requests 7 bytes", "bytes"), Some(7.0));
        assert_eq!(number_before("requests", "requests"), None);
    }
}
