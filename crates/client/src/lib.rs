//! A small Kafka client for our own tools
