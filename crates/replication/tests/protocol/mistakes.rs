//! What one could get wrong, each of which a search must find (replication.md, section 4).

/// A deliberate mistake, made where the messages are carried: the state machines themselves are the right ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A leader goes on committing beyond the end it froze.
    NoFreeze,
    /// A new leader asks members what they have without having them promise its epoch.
    NoFence,
    /// The same, and restarted members stay in ensembles of earlier lives.
    AcceptAfterRestart,
    /// A member that may have lost acknowledged bytes counts in a recovery.
    TrustLimbo,
    /// A recovery seals with fewer copies than `copies_min`.
    SealTooFew,
    /// A recovery lists all who answered as holders of the longest copy.
    ListNonHolders,
    /// A recovery decides before enough members answered.
    LowCoverage,
}
