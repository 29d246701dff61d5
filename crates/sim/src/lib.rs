//! Clusters in one seeded thread, fault injection, checkers
