//! Tells the coordinator at intervals that a member lives, and the member what the coordinator says.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base::error::ErrorCode;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use wire::message::{HeartbeatRequest, HeartbeatResponse};

use super::{GroupConfig, call_coordinator};
use crate::pool::Connections;
use crate::{Client, ClientError, Result};

/// How the membership stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// The generation goes on.
    Steady,
    /// A new generation forms: join it.
    Rebalancing,
    /// The group goes on without the member.
    Lost(ErrorCode),
}

/// A running heartbeat of one member in one generation; ends when dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    pulse: watch::Receiver<Pulse>,
    task: AbortHandle,
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heartbeat {
    pub(super) fn start(
        client: &Client,
        connections: Arc<Connections>,
        config: &GroupConfig,
        generation: i32,
        member_id: &str,
    ) -> Heartbeat {
        let (sender, pulse) = watch::channel(Pulse::Steady);
        let member = Member {
            client: client.clone(),
            connections,
            group: config.group.clone(),
            member_id: member_id.to_owned(),
            instance_id: config.instance_id.clone(),
            generation,
        };
        let task = tokio::spawn(member.beat(config.heartbeat_interval, sender)).abort_handle();
        Heartbeat { pulse, task }
    }

    pub(super) fn pulse(&self) -> Pulse {
        *self.pulse.borrow()
    }

    /// Waits until the membership stands otherwise than steady.
    pub(super) async fn changed(&mut self) {
        if self.pulse.wait_for(|pulse| *pulse != Pulse::Steady).await.is_err() {
            // The task ends only after it has said why.
            std::future::pending::<()>().await;
        }
    }
}

struct Member {
    client: Client,
    connections: Arc<Connections>,
    group: String,
    member_id: String,
    instance_id: Option<String>,
    generation: i32,
}

impl Member {
    /// Goes on during a rebalance, so that an owner who is busy keeps its place until it joins.
    async fn beat(self, interval: Duration, pulse: watch::Sender<Pulse>) {
        let clock = self.client.env().clock.clone();
        loop {
            clock.sleep(interval).await;
            let Err(error) = self.beat_once().await else { continue };
            match error.code() {
                Some(ErrorCode::RebalanceInProgress) => drop(pulse.send_replace(Pulse::Rebalancing)),
                Some(code) if !code.retriable() => {
                    pulse.send_replace(Pulse::Lost(code));
                    return;
                }
                // The session timeout decides whether it was too long.
                _ => self.client.note_group_error(&self.group, &error),
            }
        }
    }

    async fn beat_once(&self) -> Result<()> {
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance_id.as_deref().map(Cow::Borrowed),
        };
        let answer =
            call_coordinator(&self.client, &self.connections, &self.group, &request, Duration::ZERO).await?;
        let response: HeartbeatResponse = answer.read()?;
        ClientError::check(response.error_code, None, || format!("group `{}`", self.group))
    }
}
