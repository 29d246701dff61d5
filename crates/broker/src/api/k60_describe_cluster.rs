//! DescribeCluster (60), versions 0 to 2: the brokers and which of them is the controller.

use std::borrow::Cow;

use base::error::ErrorCode;
use wire::message::describe_cluster_response::DescribeClusterBroker;
use wire::message::{DescribeClusterRequest, DescribeClusterResponse};

use super::cluster::{self, BrokerView};
use super::{Close, RequestContext, authorized};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeClusterRequest,
) -> Result<DescribeClusterResponse<'static>, Close> {
    let refused = |code: ErrorCode, message: Cow<'static, str>| DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..DescribeClusterResponse::default()
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message = "This is a listener for clients of brokers, not of controllers.";
            return Ok(refused(ErrorCode::MismatchedEndpointType, message.into()));
        }
        other => {
            let message = format!("There are no endpoints of type {other}.");
            return Ok(refused(ErrorCode::UnsupportedEndpointType, message.into()));
        }
    }
    let image = context.broker.image();
    let brokers = match request.include_fenced_brokers {
        true => cluster::all_brokers(context, &image),
        false => cluster::brokers(context, &image),
    };
    Ok(DescribeClusterResponse {
        cluster_id: Cow::Owned(image.cluster_id.to_string()),
        controller_id: cluster::controller(context, &brokers),
        brokers: brokers.into_iter().map(shown).collect(),
        cluster_authorized_operations: authorized::on_cluster(request.include_cluster_authorized_operations),
        ..DescribeClusterResponse::default()
    })
}

fn shown(broker: BrokerView) -> DescribeClusterBroker<'static> {
    DescribeClusterBroker {
        broker_id: broker.id,
        host: Cow::Owned(broker.address.host),
        port: i32::from(broker.address.port),
        rack: broker.rack.map(Cow::Owned),
        is_fenced: broker.fenced,
    }
}
