//! Carrying out faults, and undoing them.

use base::env::Disk;
use base::env::sim::CrashPolicy;

use super::Cluster;
use super::faults::{Fault, Kind, plan};
use super::node::Node;

/// After an isolation ended, brokers may take so long to hear of what they missed, ms.
const HEARING_MS: u64 = 3_000;
/// Longest time of a job on a slow disk, µs.
const SLOW_JOB_US: u64 = 400_000;
/// How far a wall clock jumps at most, ms: all jumps together stay below an hour, beyond which brokers refuse timestamps.
const JUMP_MS: u64 = 600_000;

impl Cluster {
    /// Carries out the faults of the seed, one after the other; returns how many.
    pub(super) async fn storm(&self, kinds: &[Kind]) -> Result<usize, String> {
        self.sleep_ms(1_000 + self.random.below(2_000)).await;
        let strikes = plan(&self.random, kinds, self.nodes.len());
        for faults in &strikes {
            self.accused()?;
            match faults[..] {
                [one, other] => {
                    tokio::join!(biased; self.carry_out(one), self.carry_out(other));
                }
                _ => self.carry_out(faults[0]).await,
            }
            self.sleep_ms(faults.last().map_or(0, |fault| fault.rest_ms)).await;
        }
        self.sleep_ms(1_000).await;
        Ok(strikes.iter().map(Vec::len).sum())
    }

    async fn carry_out(&self, fault: Fault) {
        self.sleep_ms(fault.after_ms).await;
        self.trace.note(format!("FAULT {fault:?}"));
        self.clients.set_isolated(self.clients.is_isolated() || fault.kind.isolates());
        self.strike(fault).await;
        self.trace.note(format!("over: {:?} of node {}", fault.kind, self.nodes[fault.node].id));
    }

    /// Does what a fault is, and undoes it.
    async fn strike(&self, fault: Fault) {
        let (node, other) = (&self.nodes[fault.node], &self.nodes[fault.other]);
        match fault.kind {
            Kind::Kill => {
                node.kill();
                self.sleep_ms(fault.lasts_ms).await;
                self.boot(node);
            }
            Kind::Power => {
                node.lose_power(policy(fault.variant));
                self.sleep_ms(fault.lasts_ms).await;
                self.boot(node);
            }
            Kind::Blackout => {
                for (number, node) in self.nodes.iter().enumerate() {
                    node.lose_power(policy(fault.variant >> (2 * number)));
                }
                self.sleep_ms(fault.lasts_ms).await;
                for node in &self.nodes {
                    self.boot(node);
                    self.sleep_ms(self.random.below(2_000)).await;
                }
            }
            Kind::Two => self.lose_two(fault).await,
            Kind::Pause => {
                node.sim.pause(true);
                self.sleep_ms(fault.lasts_ms).await;
                node.sim.pause(false);
            }
            Kind::Cut => {
                self.isolate(node, true);
                self.sleep_ms(fault.lasts_ms).await;
                self.isolate(node, false);
            }
            Kind::OneWay => {
                node.sim.network.cut(&other.sim.network, true);
                self.sleep_ms(fault.lasts_ms).await;
                node.sim.network.cut(&other.sim.network, false);
            }
            Kind::Reset => node.sim.network.reset_connections(),
            Kind::SlowLink => {
                let ms = [20, 200, 2_000][(fault.variant % 3) as usize];
                node.sim.network.slow_down(&other.sim.network, ms);
                self.sleep_ms(fault.lasts_ms).await;
                node.sim.network.slow_down(&other.sim.network, 0);
            }
            Kind::SlowDisk => {
                node.sim.set_job_delay_max_us(Some(SLOW_JOB_US));
                self.sleep_ms(fault.lasts_ms).await;
                node.sim.set_job_delay_max_us(None);
            }
            Kind::FailDisk => self.fail_disk(node, fault).await,
            Kind::FullDisk => self.fill_disk(node, fault).await,
            Kind::Clock => {
                let by = (fault.variant % JUMP_MS) as i64;
                node.sim.clock.jump_wall(if fault.variant.is_multiple_of(2) { by } else { -by });
            }
            Kind::Restart => {
                node.stop().await;
                self.sleep_ms(fault.lasts_ms / 4).await;
                self.boot(node);
            }
            Kind::Rolling => self.roll().await,
            Kind::LoseDisk => self.lose_disk(fault).await,
            Kind::FlipBit => self.flip_bit(fault).await,
            Kind::Overlap => unreachable!("it stands for two others"),
        }
    }

    /// Ends all nodes in order, one after the other, and starts each again.
    async fn roll(&self) {
        for node in &self.nodes {
            node.stop().await;
            self.boot(node);
            self.sleep_ms(500 + self.random.below(3_000)).await;
        }
    }

    async fn lose_two(&self, fault: Fault) {
        let pair = [&self.nodes[fault.node], &self.nodes[fault.other]];
        for (number, node) in pair.into_iter().enumerate() {
            match (fault.variant >> number) % 2 {
                0 => node.kill(),
                _ => node.lose_power(policy(fault.variant >> (2 + number))),
            }
            self.trace.note(format!("node {} is gone", node.id));
            self.sleep_ms(self.random.below(3_000)).await;
        }
        self.sleep_ms(fault.lasts_ms).await;
        for node in pair {
            self.boot(node);
            self.sleep_ms(self.random.below(1_000)).await;
        }
    }

    /// Cuts a node off from all others, though not from clients.
    fn isolate(&self, node: &Node, cut: bool) {
        for other in self.nodes.iter().filter(|other| other.id != node.id) {
            node.sim.network.cut(&other.sim.network, cut);
            other.sim.network.cut(&node.sim.network, cut);
        }
    }

    /// A write or sync fails: what was on the way is in doubt, and the process is started anew some time later.
    async fn fail_disk(&self, node: &std::sync::Arc<Node>, fault: Fault) {
        match fault.variant % 2 {
            0 => node.sim.disk.fail_sync_after(fault.variant % 50),
            _ => node.sim.disk.fail_write_after(fault.variant % 100, false),
        }
        self.sleep_ms(fault.lasts_ms).await;
        node.kill();
        self.sleep_ms(500).await;
        self.boot(node);
    }

    /// Little room is left for a while. A process that ended for want of it is started again.
    async fn fill_disk(&self, node: &std::sync::Arc<Node>, fault: Fault) {
        let root = std::path::Path::new("/");
        let Ok(space) = node.sim.disk.space(root) else { return };
        let used = space.total - space.available;
        node.sim.disk.set_capacity(used + fault.variant % 300_000);
        self.sleep_ms(fault.lasts_ms).await;
        node.sim.disk.set_capacity(space.total);
        if fault.variant.is_multiple_of(3) {
            node.kill();
            self.boot(node);
        }
    }

    /// Undoes whatever is left of faults: everything runs, every link carries.
    pub(super) async fn heal(&self) -> Result<(), String> {
        self.world.heal_network();
        for node in &self.nodes {
            node.sim.pause(false);
            node.sim.set_job_delay_max_us(None);
        }
        self.all_serve().await?;
        self.mended().await?;
        self.sleep_ms(HEARING_MS).await;
        self.clients.set_isolated(false);
        self.trace.note("healed");
        self.accused()
    }
}

fn policy(variant: u64) -> CrashPolicy {
    [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random][(variant % 3) as usize]
}
