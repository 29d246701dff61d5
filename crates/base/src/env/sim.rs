//! The door's simulated side: seeded, in memory, with faults.
