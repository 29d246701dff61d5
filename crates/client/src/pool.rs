//! The connections of one user, at most one to each address.
//!
//! A consumer and a group member have their own: a broker answers in order, so a fetch that waits for
//! records would hold up whatever shares its connection.

use std::collections::HashMap;
use std::sync::Arc;

use base::env::Env;
use parking_lot::Mutex;

use crate::{ClientConfig, Connection, Result};

/// Room for one connection; its lock is held while it is being made, so that it is made once.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

/// Connections by address, made when asked for and made again when they have ended.
pub struct Connections {
    env: Env,
    config: Arc<ClientConfig>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Connections {
    /// None yet.
    pub fn new(env: &Env, config: Arc<ClientConfig>) -> Connections {
        Connections { env: env.clone(), config, slots: Mutex::default() }
    }

    /// The connection to an address.
    pub async fn to(&self, address: &str) -> Result<Arc<Connection>> {
        let slot = self.slots.lock().entry(address.to_owned()).or_default().clone();
        let mut slot = slot.lock().await;
        match &*slot {
            Some(connection) if !connection.is_ended() => Ok(connection.clone()),
            _ => {
                let connection = Connection::open(&self.env, &self.config, address).await?;
                *slot = Some(connection.clone());
                Ok(connection)
            }
        }
    }
}
