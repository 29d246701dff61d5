//! The power goes in a cluster that keeps records in the page cache alone (class *page-cache*): who lost it says of himself
//! that he may miss some. Nobody leads then until somebody surely has all, or until a leader is asked for that may not
//! (replication.md 2.9, 2.10). A topic of class *fsync* beside it loses nothing.

use std::time::Duration;

use base::batch::Batches;
use base::env::Random;
use base::env::sim::CrashPolicy;
use wire::message::elect_leaders_request::TopicPartitions;
use wire::message::{ElectLeadersRequest, ElectLeadersResponse};

use super::clients::Broken;
use super::history::{Place, Promise};
use super::reader::Reader;
use super::writer::Writer;
use super::{Cluster, Counts, Options, Outcome, Work, run_in};
use crate::connection::decode;

/// What the power takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Two machines of three lose it.
    OneStays,
    /// All lose it; one disk has everything all the same, but nobody can know.
    OneDiskHasAll,
    /// All lose it, and whatever was not synced.
    AllIsLost,
}

/// How long a partition must stay without a leader, s.
const LEADERLESS_S: u64 = 20;
/// How long an election may take.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);
const ELECT_VERSION: i16 = 2;
const UNCLEAN: i8 = 1;
/// Nothing of it is synced while the test runs, unless somebody syncs.
const CACHED: [(&str, &str); 2] = [("vltava.durability", "page-cache"), ("segment.ms", "86400000")];

/// Runs one seed in a world of its own, on this thread.
pub fn run_power_cut(seed: u64, cut: PowerCut) -> Outcome {
    let options = Options { faults: Vec::new(), ..Options::new(seed) };
    run_in(&options, async |cluster| cluster.live_through(cut).await)
}

impl Cluster {
    async fn live_through(&self, cut: PowerCut) -> Result<Counts, String> {
        self.nodes.iter().for_each(|node| self.boot(node));
        self.all_serve().await?;
        let (cached, durable) = (("cached".to_owned(), 0), ("durable".to_owned(), 0));
        self.create_topic(&cached.0, 1, &CACHED).await?;
        self.create_topic(&durable.0, 1, &[]).await?;
        self.write_for(2_000, &[&cached, &durable], 1).await?;
        self.trace.note(format!("power cut: {cut:?}"));
        self.lose_power(cut).await?;
        self.until(ELECTION_PATIENCE, async || self.lacks_leader(&durable).await).await?;
        if cut != PowerCut::OneStays {
            self.stays_without_leader(&cached).await?;
            self.until(ELECTION_PATIENCE, async || self.elect_unclean(&cached).await).await?;
        }
        self.until(ELECTION_PATIENCE, async || self.lacks_leader(&cached).await).await?;
        if cut == PowerCut::AllIsLost {
            self.forget_what_is_lost(&cached).await?;
        }
        let places = [cached, durable].map(|place| (place, Promise::default()));
        self.check_logs(&places).await?;
        self.write_for(1_000, &[&places[0].0, &places[1].0], 3).await?;
        self.quiet().await?;
        self.check_logs(&places).await?;
        let copies = self.check_copies().await?;
        self.accused()?;
        let records = self.clients.history.lock().acknowledgements();
        Ok(Counts { records, copies, faults: 1, ..Counts::default() })
    }

    /// Has somebody write to each partition for a while, and waits until all of it is acknowledged.
    async fn write_for(&self, ms: u64, places: &[&Place], first_writer: u32) -> Result<(), String> {
        self.clients.begin();
        let mut work = Work::default();
        for (number, place) in (first_writer..).zip(places) {
            // A producer that is idempotent would be refused once what it knows to be there is lost.
            let writer =
                Writer::new(self.clients.clone(), (*place).clone(), number, false, self.random.next_u64());
            work.tasks.push(tokio::spawn(writer.run()));
        }
        self.sleep_ms(ms).await;
        self.clients.end();
        self.finish(work).await.map(drop)
    }

    async fn lose_power(&self, cut: PowerCut) -> Result<(), String> {
        let luckiest = self.random.below(self.nodes.len() as u64) as usize;
        for (number, node) in self.nodes.iter().enumerate() {
            match (cut, number == luckiest) {
                (PowerCut::OneStays, true) => self.trace.note(format!("node {} stays", node.id)),
                (PowerCut::OneDiskHasAll, true) => node.lose_power(CrashPolicy::KeepAll),
                _ => node.lose_power(CrashPolicy::LoseAll),
            }
        }
        self.sleep_ms(500).await;
        self.all_serve().await
    }

    async fn lacks_leader(&self, place: &Place) -> Option<String> {
        let leader = self.clients.leader(&self.random, place, -1).await;
        leader.is_none().then(|| format!("{place:?} has no leader"))
    }

    async fn stays_without_leader(&self, place: &Place) -> Result<(), String> {
        for _ in 0..LEADERLESS_S {
            self.sleep_ms(1_000).await;
            self.accused()?;
            if let Some((node, epoch)) = self.clients.leader(&self.random, place, -1).await {
                return Err(format!(
                    "node {node} leads {place:?} in epoch {epoch}, and may have lost records"
                ));
            }
        }
        self.trace.note(format!("{place:?} has no leader, as it must be"));
        Ok(())
    }

    /// Asks for a leader that may have lost records; what went wrong, if it did.
    async fn elect_unclean(&self, (topic, partition): &Place) -> Option<String> {
        let elected = async {
            let mut connection = self.clients.dial(self.clients.somebody(&self.random)).await?;
            let topic = TopicPartitions { topic: topic.into(), partitions: vec![*partition] };
            let request = ElectLeadersRequest {
                election_type: UNCLEAN,
                topic_partitions: Some(vec![topic]),
                timeout_ms: 10_000,
            };
            let body = self.clients.within(connection.ask(ELECT_VERSION, &request)).await?;
            let response: ElectLeadersResponse<'_> = decode(&body, ELECT_VERSION)?;
            let topic = response.replica_election_results.first();
            Ok::<_, Broken>(topic.and_then(|topic| topic.partition_result.first()).map(|row| row.error_code))
        };
        match elected.await {
            Ok(Some(0)) => None,
            other => Some(format!("nobody is elected: {other:?}")),
        }
    }

    /// Reads what is left. The rest is known to be lost; that there is any shows that this run can tell.
    async fn forget_what_is_lost(&self, place: &Place) -> Result<(), String> {
        let reader = Reader::new(self.clients.clone(), place.clone(), Promise::default(), 1);
        let (_, bytes) = reader.read_all().await?;
        let end = Batches::new(&bytes).filter_map(Result::ok).last().map_or(0, |last| last.next_offset());
        let mut history = self.clients.history.lock();
        let known = history.end(place);
        self.trace.note(format!("{place:?} ends at {end}, {known} were acknowledged"));
        if end >= known {
            return Err(format!("{place:?}: nothing was lost up to {end}"));
        }
        history.lost(place, end);
        Ok(())
    }
}
