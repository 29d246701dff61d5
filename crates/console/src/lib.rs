//! HTTP: metrics, health and status
