//! `cargo run -p sim -- --seed 7`: runs seeds of simulated clusters, and prints what happened when.

use std::ops::Range;
use std::process::ExitCode;

use sim::cluster::faults::Kind;
use sim::cluster::{Options, run_seed};

const USAGE: &str = "\
Runs whole clusters in simulated time; everything in a run follows from its seed.

usage: sim [--seed N | --seeds A..B] [--nodes N] [--faults KIND,…|none] [--compaction on|off] [--log FILTER]

  --seed N       one seed, with its trace on standard output [default: 0]
  --seeds A..B   many, with a count on standard error; a seed that fails is told with the end of its trace
  --nodes N      nodes, from 3 to 9; three of them vote [default: 3]
  --faults KINDS kinds of faults to draw from, or none [default: all]
  --compaction on|off  whether logs are compacted [default: on]
  --log FILTER   what brokers log, too, as in RUST_LOG

kinds:";
/// Lines of the trace of a failed seed, when there are many.
const LINES_SHOWN: usize = 40;

struct Arguments {
    seeds: Range<u64>,
    one: bool,
    nodes: usize,
    faults: Vec<Kind>,
    compaction: bool,
    log: Option<String>,
}

fn parse(mut texts: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let faults = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
    let mut arguments = Arguments { seeds: 0..1, one: true, nodes: 3, faults, compaction: true, log: None };
    while let Some(key) = texts.next() {
        let value = texts.next().ok_or_else(|| format!("{key} takes a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{key}: {text} is no number"));
        match key.as_str() {
            "--seed" => {
                let seed = number(&value)?;
                (arguments.seeds, arguments.one) = (seed..seed.saturating_add(1), true);
            }
            "--seeds" => {
                let (from, to) = value.split_once("..").ok_or("--seeds takes A..B")?;
                (arguments.seeds, arguments.one) = (number(from)?..number(to)?, false);
            }
            "--nodes" => {
                arguments.nodes = usize::try_from(number(&value)?).unwrap_or(0);
                if !(3..=9).contains(&arguments.nodes) {
                    return Err("--nodes takes 3 to 9".to_owned());
                }
            }
            "--faults" if value == "none" => arguments.faults.clear(),
            "--faults" => {
                let kind = |name| Kind::of(name).ok_or_else(|| format!("--faults: there is no {name}"));
                arguments.faults = value.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--compaction" if value == "on" || value == "off" => arguments.compaction = value == "on",
            "--log" => arguments.log = Some(value),
            _ => return Err(format!("there is no {key}")),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let kinds: Vec<&str> = Kind::ALL.iter().map(|(_, name)| *name).collect();
            eprintln!("error: {error}\n\n{USAGE} {}", kinds.join(", "));
            return ExitCode::from(2);
        }
    };
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let (mut failed, mut records, mut copies) = (Vec::new(), 0, 0);
    let count = arguments.seeds.end.saturating_sub(arguments.seeds.start);
    for (done, seed) in (1..).zip(arguments.seeds.clone()) {
        let options = Options {
            nodes: arguments.nodes,
            faults: arguments.faults.clone(),
            compaction: arguments.compaction,
            echo: arguments.one,
            ..Options::new(seed)
        };
        let outcome = run_seed(&options);
        match outcome.result {
            Ok(counts) => (records, copies) = (records + counts.records, copies + counts.copies),
            Err(error) => {
                failed.push(seed);
                println!("seed {seed} FAILED: {error}");
                if !arguments.one {
                    let lines: Vec<&str> = outcome.trace.lines().collect();
                    println!("{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
                }
            }
        }
        if !arguments.one {
            eprint!("\r{done} of {count} seeds, {} failed, {records} records, {copies} copies", failed.len());
        }
    }
    if !arguments.one {
        eprintln!();
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => {
            println!("failed: {failed:?}");
            ExitCode::FAILURE
        }
    }
}
