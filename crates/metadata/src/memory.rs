//! A metadata store that forgets all when it goes: for tests and brokers without a disk.

use std::sync::Arc;

use base::env::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::command::{Command, CommandResult};
use crate::control;
use crate::image::Image;
use crate::record::encode_command;
use crate::store::{MetadataStore, ProposeError, check_length};

/// See the module's head.
pub struct MemoryStore {
    image: Mutex<Image>,
    published: watch::Sender<Arc<Image>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { image: Mutex::default(), published: watch::Sender::new(Arc::default()) }
    }
}

impl MetadataStore for MemoryStore {
    fn image(&self) -> Arc<Image> {
        self.published.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        if let Err(error) = check_length(&encode_command(&command)) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let mut image = self.image.lock();
        let result = control::apply(&mut image, command);
        self.published.send_replace(Arc::new(image.clone()));
        Box::pin(std::future::ready(Ok(result)))
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.published.subscribe()
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
