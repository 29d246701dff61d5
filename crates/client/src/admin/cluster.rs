//! The cluster itself.

use std::time::Duration;

use base::ids::BrokerId;
use wire::ApiKey;
use wire::message::{DescribeClusterRequest, DescribeClusterResponse};

use crate::{Client, ClientError, Result, Topics};

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: String,
    /// The broker to which changes are sent.
    pub controller: Option<BrokerId>,
    /// Brokers that are alive, by id.
    pub brokers: Vec<DescribedBroker>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedBroker {
    /// Its id.
    pub id: BrokerId,
    /// Host as it advertises it.
    pub host: String,
    /// Port as it advertises it.
    pub port: i32,
    /// Rack, if it has one.
    pub rack: Option<String>,
}

impl Client {
    /// Describes the cluster; where brokers do not know that question, from their metadata.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let connection = self.any().await?;
        if connection.version_of(ApiKey::DescribeCluster).is_err() {
            return self.cluster_from_metadata().await;
        }
        let request = DescribeClusterRequest::default();
        let answer = connection.start(&request, Duration::ZERO).await?.wait().await?;
        let response: DescribeClusterResponse = answer.read()?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || "cluster".to_owned())?;
        let mut brokers: Vec<_> = response
            .brokers
            .iter()
            .map(|broker| DescribedBroker {
                id: BrokerId(broker.broker_id),
                host: broker.host.clone().into_owned(),
                port: broker.port,
                rack: broker.rack.as_deref().map(str::to_owned),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.clone().into_owned(),
            controller: Some(BrokerId(response.controller_id)).filter(|id| id.0 >= 0),
            brokers,
        })
    }

    async fn cluster_from_metadata(&self) -> Result<ClusterDescription> {
        let metadata = self.metadata(Topics::None).await?;
        let broker = |(id, broker): (BrokerId, crate::BrokerAddress)| DescribedBroker {
            id,
            host: broker.host.to_string(),
            port: broker.port,
            rack: broker.rack,
        };
        Ok(ClusterDescription {
            cluster_id: metadata.cluster_id.unwrap_or_default(),
            controller: metadata.controller,
            brokers: metadata.brokers.into_iter().map(broker).collect(),
        })
    }

    /// The newest version of each API that a broker and the codec both know, with the broker's own range.
    pub async fn broker_versions(&self, broker: BrokerId) -> Result<Vec<(ApiKey, wire::VersionRange)>> {
        Ok(self.broker(broker).await?.broker_versions())
    }
}
