//! The error codes in an answer, for counting them.

use wire::message::*;

/// Visits every error code of an answer, that of success too.
pub(crate) trait ErrorCodes {
    /// Calls `visit` with each.
    fn each_error_code(&self, visit: &mut dyn FnMut(i16));
}

/// For each response the paths to its error codes, through arrays.
macro_rules! error_codes {
    ($($response:ident: $($($part:ident).+),+;)+) => {$(
        impl ErrorCodes for $response<'_> {
            fn each_error_code(&self, visit: &mut dyn FnMut(i16)) {
                $(error_codes!(@walk self, visit; $($part).+);)+
            }
        }
    )+};
    (@walk $value:expr, $visit:ident; $code:ident) => { $visit($value.$code) };
    (@walk $value:expr, $visit:ident; $array:ident . $($rest:ident).+) => {
        for item in &$value.$array {
            error_codes!(@walk item, $visit; $($rest).+);
        }
    };
}

error_codes! {
    ProduceResponse: responses.partition_responses.error_code;
    FetchResponse: error_code, responses.partitions.error_code;
    ListOffsetsResponse: topics.partitions.error_code;
    MetadataResponse: topics.error_code, topics.partitions.error_code;
    OffsetCommitResponse: topics.partitions.error_code;
    OffsetFetchResponse: error_code, topics.partitions.error_code, groups.error_code,
        groups.topics.partitions.error_code;
    FindCoordinatorResponse: error_code, coordinators.error_code;
    JoinGroupResponse: error_code;
    LeaveGroupResponse: error_code, members.error_code;
    SyncGroupResponse: error_code;
    DescribeGroupsResponse: groups.error_code;
    ListGroupsResponse: error_code;
    ApiVersionsResponse: error_code;
    CreateTopicsResponse: topics.error_code;
    DeleteTopicsResponse: responses.error_code;
    DeleteRecordsResponse: topics.partitions.error_code;
    OffsetForLeaderEpochResponse: topics.partitions.error_code;
    DescribeConfigsResponse: results.error_code;
    AlterConfigsResponse: responses.error_code;
    DescribeLogDirsResponse: error_code, results.error_code;
    CreatePartitionsResponse: results.error_code;
    DeleteGroupsResponse: results.error_code;
    ElectLeadersResponse: error_code, replica_election_results.partition_result.error_code;
    IncrementalAlterConfigsResponse: responses.error_code;
    AlterPartitionReassignmentsResponse: error_code, responses.partitions.error_code;
    ListPartitionReassignmentsResponse: error_code;
    OffsetDeleteResponse: error_code, topics.partitions.error_code;
    DescribeQuorumResponse: error_code, topics.partitions.error_code;
    DescribeClusterResponse: error_code;
    UnregisterBrokerResponse: error_code;
    DescribeTopicPartitionsResponse: topics.error_code, topics.partitions.error_code;
}

/// Responses without any borrowed field.
macro_rules! single_error_code {
    ($($response:ident)+) => {$(
        impl ErrorCodes for $response {
            fn each_error_code(&self, visit: &mut dyn FnMut(i16)) {
                visit(self.error_code);
            }
        }
    )+};
}

single_error_code! { HeartbeatResponse InitProducerIdResponse }

#[cfg(test)]
mod tests {
    use wire::message::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    use super::*;

    #[test]
    fn codes_at_the_top_and_in_parts_are_visited() {
        let partition = |error_code| PartitionProduceResponse { error_code, ..Default::default() };
        let topic = |codes: &[i16]| TopicProduceResponse {
            partition_responses: codes.iter().copied().map(partition).collect(),
            ..Default::default()
        };
        let response = ProduceResponse { responses: vec![topic(&[0, 3]), topic(&[6])], ..Default::default() };
        let mut seen = Vec::new();
        response.each_error_code(&mut |code| seen.push(code));
        HeartbeatResponse { error_code: 27, ..Default::default() }
            .each_error_code(&mut |code| seen.push(code));
        assert_eq!(seen, [0, 3, 6, 27]);
    }
}
