//! What befalls nodes, drawn from a seed.

use std::time::{Duration, Instant};

use base::env::sim::SimRandom;

use crate::chaos::{COPIES, Nodes, pause_ms};
use crate::wires::Wires;

/// What kind of faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Processes are killed, held and ended.
    Lives,
    /// What nodes send to one another is lost; what clients and nodes say to each other is not.
    Wires,
    /// Disks are slow, full or fail; wall clocks jump.
    Disks,
}

/// What was done, when.
pub(crate) struct Fault {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) at: Duration,
    pub(crate) over: Duration,
}

impl Plan {
    /// Lets something happen, and undoes it.
    pub(crate) async fn strike(self, nodes: &mut Nodes, choices: &SimRandom, began: Instant) -> Fault {
        let at = began.elapsed();
        let one = choices.below(3) as usize;
        let other = (one + 1 + choices.below(2) as usize) % 3;
        let (kind, text) = match self {
            Plan::Lives => end_lives(nodes, choices, (one, other)).await,
            Plan::Wires => cut_wires(nodes, choices, (one, other)).await,
            Plan::Disks => spoil_disks(nodes, choices, one).await,
        };
        println!("{:7.2} s  {text}", at.as_secs_f64());
        Fault { kind, text, at, over: began.elapsed() }
    }
}

async fn end_lives(
    nodes: &mut Nodes,
    choices: &SimRandom,
    (one, other): (usize, usize),
) -> (&'static str, String) {
    let down = 200 + choices.below(4_800);
    match choices.below(11) {
        0..=2 => {
            nodes.kill(one);
            pause_ms(down).await;
            nodes.restart(one);
            ("kill", format!("kill {}, {down} ms", one + 1))
        }
        3..=5 => {
            let ms = 1_000 + choices.below(7_000);
            nodes.life(one).hold(true);
            pause_ms(ms).await;
            nodes.life(one).hold(false);
            ("hold", format!("hold {}, {ms} ms", one + 1))
        }
        6..=7 => {
            let between = choices.below(1_500);
            nodes.kill(one);
            pause_ms(between).await;
            nodes.kill(other);
            pause_ms(down).await;
            let (first, second) = if choices.below(2) == 0 { (one, other) } else { (other, one) };
            nodes.restart(first);
            let apart = choices.below(1_000);
            pause_ms(apart).await;
            nodes.restart(second);
            let text = format!(
                "kill {}, {between} ms later {}, {down} ms, start {}, {apart} ms later {}",
                one + 1,
                other + 1,
                first + 1,
                second + 1
            );
            ("kill two", text)
        }
        8 => {
            (0..3).for_each(|node| nodes.kill(node));
            pause_ms(down / 2).await;
            (0..3).for_each(|node| nodes.restart(node));
            ("kill all", format!("kill all, {} ms", down / 2))
        }
        _ => {
            let took = tokio::task::block_in_place(|| nodes.end(one));
            pause_ms(down / 2).await;
            nodes.restart(one);
            ("end", format!("end {} ({} ms), {} ms", one + 1, took.as_millis(), down / 2))
        }
    }
}

async fn cut_wires(
    nodes: &Nodes,
    choices: &SimRandom,
    (one, other): (usize, usize),
) -> (&'static str, String) {
    let wires = nodes.wires.as_ref().expect("they have been laid");
    let all = || (0..COPIES).filter(move |node| *node != one);
    let (kind, what, cuts): (_, _, Vec<(usize, usize)>) = match choices.below(5) {
        0 => ("cut off", String::new(), all().flat_map(|peer| [(one, peer), (peer, one)]).collect()),
        1 => ("mute", String::new(), all().map(|peer| (one, peer)).collect()),
        2 => ("deaf", String::new(), all().map(|peer| (peer, one)).collect()),
        3 => ("cut", format!(" from {}", other + 1), vec![(one, other), (other, one)]),
        _ => ("cut one way", format!(" to {}", other + 1), vec![(one, other)]),
    };
    let ms = 500 + choices.below(9_500);
    cuts.iter().for_each(|(from, to)| Wires::cut(wires, *from, *to));
    pause_ms(ms).await;
    cuts.iter().for_each(|(from, to)| Wires::mend(wires, *from, *to));
    (kind, format!("{} {kind}{what}, {ms} ms", one + 1))
}

async fn spoil_disks(nodes: &mut Nodes, choices: &SimRandom, one: usize) -> (&'static str, String) {
    let (kind, faults) = match choices.below(7) {
        0 => ("slow syncs", format!("sync.delay.ms={}", 20 + choices.below(280))),
        1 => ("slow writes", format!("write.delay.ms={}", 1 + choices.below(100))),
        2..=3 => ("full", "full=true".to_owned()),
        4 => ("failing writes", "write.error=true".to_owned()),
        5 => ("failing syncs", "sync.error=true".to_owned()),
        _ => ("clock jump", format!("wall.jump.ms={}", choices.below(7_200_000) as i64 - 3_600_000)),
    };
    let ms = 500 + choices.below(6_500);
    nodes.nodes[one].fault(&faults);
    pause_ms(ms).await;
    // A disk that failed is not trusted again in this life; a process all of whose disks failed ends.
    let fails = kind.starts_with("failing");
    let ended = fails && nodes.life(one).ended().is_some();
    if fails && !ended {
        nodes.kill(one);
    }
    nodes.nodes[one].fault("");
    if fails {
        nodes.restart(one);
    }
    let end = if ended { ", ended by itself" } else { "" };
    (kind, format!("{} has {kind} ({faults}), {ms} ms{end}", one + 1))
}
