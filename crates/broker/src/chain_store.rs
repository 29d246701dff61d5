//! The chains of partitions, edited through the metadata store.

use std::sync::Arc;

use base::chain::{Member, PartitionState, Rewrite, Seal};
use base::env::BoxFuture;
use base::ids::{Offset, TopicPartition};
use metadata::{ChainEdit, Command, CommandResult, EditError, MetadataStore};
use replication::{ChainStore, ChainStoreError};

/// See the module's head.
pub(crate) struct MetadataChains(pub(crate) Arc<dyn MetadataStore>);

impl MetadataChains {
    async fn edit(&self, edit: ChainEdit) -> Result<Arc<PartitionState>, ChainStoreError> {
        let unavailable = |what: String| ChainStoreError::Unavailable(what);
        let result = self
            .0
            .propose(Command::Edit(vec![edit]))
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let CommandResult::Chains(mut results) = result else {
            return Err(unavailable("the answer is of another kind".to_owned()));
        };
        match results.pop() {
            Some(Ok(state)) => Ok(state),
            Some(Err(EditError::UnknownPartition)) => Err(ChainStoreError::UnknownPartition),
            Some(Err(EditError::Chain(error))) => Err(ChainStoreError::Refused(error)),
            None => Err(unavailable("the answer is empty".to_owned())),
        }
    }
}

impl ChainStore for MetadataChains {
    fn takes_edits(&self) -> bool {
        self.0.problem().is_none()
    }

    fn partition(&self, partition: TopicPartition) -> Option<Arc<PartitionState>> {
        self.0.image().partition(&partition).cloned()
    }

    fn seal_and_open(
        &self,
        partition: TopicPartition,
        seal: Seal,
        ensemble: Vec<Member>,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>> {
        Box::pin(self.edit(ChainEdit::SealAndOpen { partition, seal, ensemble }))
    }

    fn trim(
        &self,
        partition: TopicPartition,
        start: Offset,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>> {
        Box::pin(self.edit(ChainEdit::Trim { partition, start }))
    }

    fn replace(
        &self,
        partition: TopicPartition,
        rewrite: Rewrite,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>> {
        Box::pin(self.edit(ChainEdit::Replace { partition, rewrite }))
    }
}
