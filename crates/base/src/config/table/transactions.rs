//! Transactions, which are not served yet.

use super::reasons::TRANSACTIONS;
use crate::config::key::{boolean, int, short};

config_keys! { pub(in crate::config) ROWS;
    [] int("add.partitions.to.txn.retry.backoff.ms").default("20").min(1).high()
        .doc("First wait before a partition is added to a transaction again, ms.")
        .no_effect(TRANSACTIONS);
    [] int("add.partitions.to.txn.retry.backoff.max.ms").default("100").min(0).high()
        .doc("Longest wait before a partition is added to a transaction again, ms.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.abort.timed.out.transaction.cleanup.interval.ms").default("10000").min(1).low()
        .doc("Time between two searches for transactions that took too long, ms.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.max.timeout.ms").default("900000").min(1).high()
        .doc("Longest timeout a transaction may ask for, ms.")
        .no_effect(TRANSACTIONS);
    [] boolean("transaction.partition.verification.enable").default("true").low().cluster_wide()
        .doc("Check that a partition belongs to the transaction before records are appended.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.remove.expired.transaction.cleanup.interval.ms").default("3600000").min(1).low()
        .doc("Time between two searches for transactional ids to forget, ms.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.state.log.load.buffer.size").default("5242880").min(1).high()
        .doc("Bytes read at once when transactions are loaded.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.state.log.min.isr").default("2").min(1).high()
        .doc("Least copies in sync of the topic that holds transactions.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.state.log.num.partitions").default("50").min(1).high()
        .doc("Partitions of the topic that holds transactions.")
        .no_effect(TRANSACTIONS);
    [] short("transaction.state.log.replication.factor").default("3").min(1).high()
        .doc("Copies of the topic that holds transactions.")
        .no_effect(TRANSACTIONS);
    [] int("transaction.state.log.segment.bytes").default("104857600").min(1).high()
        .doc("Segment size of the topic that holds transactions, bytes.")
        .no_effect(TRANSACTIONS);
    [] boolean("transaction.two.phase.commit.enable").default("false").low()
        .doc("Allow transactions that are prepared here and decided elsewhere.")
        .no_effect(TRANSACTIONS);
    [] int("transactional.id.expiration.ms").default("604800000").min(1).high()
        .doc("How long, ms, an idle transactional id is remembered.")
        .no_effect(TRANSACTIONS);
}
