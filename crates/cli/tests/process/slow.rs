//! A member whose disk becomes slow holds the others up until they go on without it, and no longer.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::chaos::{HEAL_WITHIN, Nodes, View};
use crate::failover::{PROBED, Probes, acknowledged_again, create_probed, spawn_probes};
use crate::faults::Plan;
use crate::run;

/// How long each of its writes waits.
const SLOW: &str = "write.delay.ms=100";
/// Within so long the others must have gone on without it.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// What half of the records may take from then on: with the slow member they take 100 ms and more.
const MEDIAN_MAX: Duration = Duration::from_millis(50);
/// Latencies are told for times of this length, so many of them.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: u32 = 12;
/// How long nothing is wrong.
const QUIET: Duration = Duration::from_secs(4);

/// The node that leads fewest of the probed partitions, counted from 0, and those it does not lead.
fn bystander(view: &View) -> (usize, Vec<usize>) {
    let led_by_others = |node: i32| {
        let probed = view.partitions.iter().filter(|(name, _)| &*name.topic == PROBED.topic);
        let others = probed.filter(|(_, (leader, ..))| *leader != node);
        others.map(|(name, _)| name.partition as usize).collect::<Vec<_>>()
    };
    (1..=3)
        .map(|node| (node as usize - 1, led_by_others(node)))
        .max_by_key(|(_, led)| led.len())
        .expect("three")
}

/// The median and the 99th percentile of records sent in a time.
fn latencies(probes: &Probes, partitions: &[usize], from: Duration, to: Duration) -> (Duration, Duration) {
    let mut took: Vec<Duration> =
        partitions.iter().flat_map(|partition| probes.latencies(*partition, from, to)).collect();
    took.sort();
    assert!(!took.is_empty(), "nothing was acknowledged of what was sent between {from:?} and {to:?}");
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
fn a_slow_member_holds_the_others_up_for_no_longer_than_it_takes_to_do_without_it() {
    run(async {
        let nodes = Nodes::start_for("slow", Plan::Disks);
        create_probed(&nodes).await;
        let mut clients = JoinSet::new();
        let (loads, [probes, _]) = spawn_probes(&nodes, &mut clients).await;
        let all: Vec<usize> = (0..PROBED.partitions as usize).collect();
        acknowledged_again(&probes, &all, Instant::now() + QUIET).await;
        let (slow, partitions) = bystander(&nodes.view(0).await.expect("it serves"));
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
        assert!(held_up <= GONE_WITHIN, "{windows:?}");
        nodes.nodes[slow].fault("");
        let healed = nodes.heal(HEAL_WITHIN).await.unwrap_or_else(|error| panic!("{error}"));
        println!("it is a member again {healed:.1?} after its disk was well");
        loads.iter().for_each(|load| load.end());
        while clients.join_next().await.is_some() {}
        assert!(probes.errors.lock().is_empty(), "{:?}", probes.errors.lock());
    });
}
