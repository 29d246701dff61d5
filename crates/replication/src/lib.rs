//! One log as a chain of segments: leader writer, recovery, seal, trim, compaction
