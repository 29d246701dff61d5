//! A node whose disk becomes slow holds up those whose records it keeps, and those whose partitions it leads, until the
//! others go on without it, and no longer.

use std::time::{Duration, Instant};

use client::PartitionName;
use tokio::task::JoinSet;

use crate::chaos::{HEAL_WITHIN, Nodes, View};
use crate::failover::{PROBED, Probes, acknowledged_again, create_probed, spawn_probes};
use crate::faults::Plan;
use crate::run;

/// How long each of its writes waits.
const SLOW: &str = "write.delay.ms=100";
/// Within so long the others must have gone on without it,
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// and where it leads, others lead: it gives up once those have gone on without it elsewhere.
const DEPOSED_WITHIN: Duration = Duration::from_secs(8);
/// What half of the records may take from then on: with the slow member they take 100 ms and more.
const MEDIAN_MAX: Duration = Duration::from_millis(50);
/// Latencies are told for times of this length, so many of them.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: u32 = 20;
/// How long nothing is wrong.
const QUIET: Duration = Duration::from_secs(4);

/// The probed partitions that a node leads, and the others.
fn led_by(view: &View, node: usize) -> (Vec<usize>, Vec<usize>) {
    let probed = view.partitions.iter().filter(|(name, _)| &*name.topic == PROBED.topic);
    let (led, others): (Vec<_>, Vec<_>) = probed.partition(|(_, (leader, ..))| *leader == node as i32 + 1);
    let numbers =
        |part: Vec<(&PartitionName, _)>| part.iter().map(|(name, _)| name.partition as usize).collect();
    (numbers(led), numbers(others))
}

/// The node that leads fewest of the probed partitions, counted from 0, and those it does not lead.
fn bystander(view: &View) -> (usize, Vec<usize>) {
    let others = (0..3).map(|node| (node, led_by(view, node).1));
    others.max_by_key(|(_, led)| led.len()).expect("three")
}

/// The node that leads most of them, and those.
fn leader(view: &View) -> (usize, Vec<usize>) {
    let led = (0..3).map(|node| (node, led_by(view, node).0));
    led.max_by_key(|(_, led)| led.len()).expect("three")
}

/// The median and the 99th percentile of records sent in a time.
fn latencies(probes: &Probes, partitions: &[usize], from: Duration, to: Duration) -> (Duration, Duration) {
    let mut took: Vec<Duration> =
        partitions.iter().flat_map(|partition| probes.latencies(*partition, from, to)).collect();
    took.sort();
    assert!(!took.is_empty(), "nothing was acknowledged of what was sent between {from:?} and {to:?}");
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// Makes the disk of the node slow that `choose` names, and looks for how long the partitions that it names are held up.
fn slow_down(name: &str, choose: impl Fn(&View) -> (usize, Vec<usize>), held_up_max: Duration) {
    run(async {
        let nodes = Nodes::start_for(name, Plan::Disks);
        create_probed(&nodes).await;
        let mut clients = JoinSet::new();
        let (loads, [probes, _]) = spawn_probes(&nodes, &mut clients).await;
        let all: Vec<usize> = (0..PROBED.partitions as usize).collect();
        acknowledged_again(&probes, &all, Instant::now() + QUIET).await;
        let (slow, partitions) = choose(&nodes.view(0).await.expect("it serves"));
        let at = probes.began.elapsed();
        let (median, p99) = latencies(&probes, &partitions, at - QUIET / 2, at);
        println!("quiet: median {median:.2?}, p99 {p99:.2?}");
        nodes.nodes[slow].fault(SLOW);
        acknowledged_again(&probes, &partitions, Instant::now() + WINDOW * WINDOWS).await;
        let windows: Vec<_> = (0..WINDOWS)
            .map(|window| {
                let from = at + WINDOW * window;
                let (median, p99) = latencies(&probes, &partitions, from, from + WINDOW);
                println!(
                    "{:4.1} s after node {} was slow: median {median:.2?}, p99 {p99:.2?}",
                    (WINDOW * window).as_secs_f64(),
                    slow + 1
                );
                (WINDOW * window, median)
            })
            .collect();
        let held_up =
            windows.iter().filter(|(_, median)| *median > MEDIAN_MAX).map(|(from, _)| *from + WINDOW).max();
        let held_up = held_up.expect("a disk as slow as that is felt");
        println!("half of the records were held up for {held_up:?}");
        assert!(held_up <= held_up_max, "{windows:?}");
        nodes.nodes[slow].fault("");
        let healed = nodes.heal(HEAL_WITHIN).await.unwrap_or_else(|error| panic!("{error}"));
        println!("it is a member again {healed:.1?} after its disk was well");
        loads.iter().for_each(|load| load.end());
        while clients.join_next().await.is_some() {}
        assert!(probes.errors.lock().is_empty(), "{:?}", probes.errors.lock());
    });
}

#[test]
fn a_slow_member_holds_the_others_up_for_no_longer_than_it_takes_to_do_without_it() {
    slow_down("slow", bystander, GONE_WITHIN);
}

#[test]
fn a_slow_leader_is_replaced() {
    slow_down("slow-leader", leader, DEPOSED_WITHIN);
}
