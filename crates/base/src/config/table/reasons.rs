//! Why a key of Kafka's has no effect here. Each text follows "has no effect here, because".

pub(super) const AUTHORIZER: &str =
    "access control is not served yet, and without it everybody could do everything";
pub(super) const BACKLOG: &str = "the backlog is fixed at 1024 connections";
pub(super) const CHECKPOINT: &str = "recovery points are kept beside the segments as they change";
pub(super) const CLEANER_BUFFER: &str = "compaction reads and writes through buffers of a fixed size";
pub(super) const CONNECTION_RATE: &str = "connections are bounded by their number, not by their rate";
pub(super) const CONTROLLER_EVENTS: &str = "the time of a single change of metadata is not logged";
pub(super) const COORDINATOR_BATCH: &str = "what arrives while a write is under way goes with the next one";
pub(super) const CORDON: &str = "directories cannot be cordoned yet";
pub(super) const DIR_FAILURE: &str = "a failed directory is told at once";
pub(super) const EARLY: &str = "no listener opens before the node is ready";
pub(super) const FETCHERS: &str =
    "a leader sends records to the other copies as they come; no copy fetches them";
pub(super) const FLUSH: &str = "what an acknowledgement promises is set by `vltava.durability`";
pub(super) const INDEX_SIZE: &str = "an index grows with its segment and has no bound of its own";
pub(super) const JVM: &str = "classes written for the JVM cannot be loaded";
pub(super) const KIP848: &str = "the consumer group protocol of KIP-848 is not served yet";
pub(super) const LOAD_BUFFER: &str = "groups are loaded batch by batch";
pub(super) const LZ4_LEVEL: &str = "the lz4 encoder has one level";
pub(super) const METADATA_LOG: &str = "the metadata log sizes and trims itself";
pub(super) const METRIC_SAMPLES: &str =
    "metrics are counters and histograms, and whoever reads them computes the rates";
pub(super) const MOVE_DIRS: &str = "partitions cannot be moved between directories yet";
pub(super) const NODE_TIMES: &str = "the times that nodes wait for each other are fixed";
pub(super) const ONLY_CLASSIC: &str = "only the classic group protocol is served yet";
pub(super) const POLICY: &str =
    "policies written for the JVM cannot be loaded, and without them changes would pass that should not";
pub(super) const PREALLOCATE: &str = "the storage itself decides how disk space is reserved";
pub(super) const PRODUCER_SWEEP: &str = "idle producers are looked for every 10 s";
pub(super) const PROVIDERS: &str =
    "values cannot be looked up elsewhere yet, and a reference taken literally would be a wrong value";
pub(super) const PURGATORY: &str =
    "a waiting request is woken by what it waits for and leaves nothing to clean";
pub(super) const QUEUE: &str =
    "requests are not queued for threads; `queued.max.request.bytes` bounds their size";
pub(super) const QUORUM: &str = "the times and sizes of the controllers are fixed; a leader that falls silent is replaced within a second";
pub(super) const QUOTAS: &str = "quotas are not served yet";
pub(super) const QUOTA_CALLBACK: &str =
    "classes written for the JVM cannot be loaded, and without this one clients would run without quotas";
pub(super) const RECOVERY: &str = "recovery runs on the node's own worker threads";
pub(super) const REGISTRATION: &str = "a starting broker tries to register until it is ended";
pub(super) const REMOVAL: &str = "files of a dropped segment are removed at once; reads that run finish";
pub(super) const REPORTERS: &str =
    "metrics are served over HTTP in Prometheus form at `vltava.http.listener`";
pub(super) const SASL: &str = "SASL authentication is not served yet";
pub(super) const SHARE: &str = "share groups are not served yet";
pub(super) const SOCKET_BUFFERS: &str = "the operating system sizes socket buffers by need";
pub(super) const STARTUP: &str = "the start goes on until recovery is done";
pub(super) const STREAMS: &str = "streams groups are not served yet";
pub(super) const TASK_DELAY: &str = "background work keeps its interval from the start on";
pub(super) const TELEMETRY: &str = "client metrics are not collected yet";
pub(super) const THREADS: &str = "the node runs as many threads as the machine has processors";
pub(super) const THROTTLE: &str = "copies are not throttled yet";
pub(super) const TIERED: &str = "tiered storage is not served yet";
pub(super) const TLS: &str = "TLS is not served yet";
pub(super) const TOKENS: &str = "delegation tokens are not served yet";
pub(super) const TRANSACTIONS: &str = "transactions are not served yet";
pub(super) const UNCLEAN: &str = "the controller looks several times a second";
pub(super) const UNSTABLE: &str = "only released versions are served";
pub(super) const VOTERS: &str = "the voters are those of `controller.quorum.voters`";
