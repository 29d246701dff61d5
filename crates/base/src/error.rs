//! Kafka's error codes: the one table that maps a code to its name, whether a client may retry, and words.
//!
//! Codes and names are Kafka's and never change; the messages are ours. Which codes an API may answer
//! is decided where the answer is made: clients throw on codes an API does not list.

use std::fmt;

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $retriable:literal, $message:literal;)*) => {
        /// An error code of the Kafka protocol; `None` (0) is success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, in ascending order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The error for a number on the wire; an unknown number is [`ErrorCode::UnknownServerError`].
            pub fn from_code(code: i16) -> ErrorCode {
                match code {
                    $($code => ErrorCode::$variant,)*
                    _ => ErrorCode::UnknownServerError,
                }
            }

            /// Kafka's name, as in `NOT_LEADER_OR_FOLLOWER`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// Whether the same request may succeed when sent again.
            pub fn retriable(self) -> bool {
                match self {
                    $(ErrorCode::$variant => $retriable,)*
                }
            }

            /// What happened, in one sentence.
            pub fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $message,)*
                }
            }
        }
    };
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// True for everything but [`ErrorCode::None`].
    pub fn is_error(self) -> bool {
        self != ErrorCode::None
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", false,
        "The broker failed in a way that no other code describes; its log says how.";
    None = 0, "NONE", false, "Nothing is wrong.";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", false,
        "The offset is below the first or above the last offset of the partition.";
    CorruptMessage = 2, "CORRUPT_MESSAGE", true,
        "The bytes of the batch are not those that were sent: its checksum, size or form is wrong.";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", true,
        "The broker does not know the topic or partition, or does not hold it.";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", false, "The size asked for is no size a fetch can have.";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", true, "The partition has no leader at this moment.";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", true,
        "The broker does not lead the partition, or not any more; look up the leader again.";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", true, "The request was not finished in the time it was given.";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", false, "The broker is not reachable.";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", true,
        "The broker holds no copy of the partition that can be read now.";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", false, "The batch is larger than the topic takes.";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", false,
        "The controller that sent the request has been replaced since.";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", false,
        "The text beside the committed offset is longer than the broker stores.";
    NetworkException = 13, "NETWORK_EXCEPTION", true, "The connection was lost before the answer came.";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", true,
        "The group or transaction coordinator still reads its state; try again shortly.";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", true,
        "There is no coordinator for this group or transactional id at this moment.";
    NotCoordinator = 16, "NOT_COORDINATOR", true,
        "The broker is not the coordinator of this group or transactional id; look it up again.";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", false, "The name is no name a topic can have.";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", false,
        "The request holds more records than a segment of the log can.";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", true,
        "Too few copies of the partition are in sync to take the records.";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true,
        "The records were written, but too few copies were in sync to count them as committed.";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", false,
        "The number of acknowledgements asked for is none of -1, 0 and 1.";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", false,
        "The generation of the group is not the one the member speaks of; it has been rebalanced since.";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", false,
        "The member has no protocol in common with the rest of the group.";
    InvalidGroupId = 24, "INVALID_GROUP_ID", false, "The group id is no name a group can have.";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", false,
        "The coordinator does not know this member of the group.";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", false,
        "The session timeout lies outside of what the broker allows.";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", false,
        "The group is being rebalanced; the member must join again.";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", false,
        "The offsets committed are too large to be stored.";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", false,
        "The client may not do this with the topic.";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", false,
        "The client may not do this with the group.";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", false,
        "The client may not do this with the cluster.";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", false,
        "The timestamp of a record lies outside of what the topic takes.";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", false,
        "The broker does not offer this SASL mechanism.";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", false,
        "The request does not fit the state of the authentication.";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", false,
        "The broker does not speak this version of the request.";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", false, "A topic of this name exists already.";
    InvalidPartitions = 37, "INVALID_PARTITIONS", false,
        "The number of partitions is none this topic can have.";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", false,
        "The replication factor is below one or above the number of brokers.";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", false,
        "The assignment of copies to brokers cannot be carried out.";
    InvalidConfig = 40, "INVALID_CONFIG", false, "A configuration value is not valid.";
    NotController = 41, "NOT_CONTROLLER", true, "The broker is not the controller; ask that one.";
    InvalidRequest = 42, "INVALID_REQUEST", false,
        "The request contradicts itself or lacks something it needs.";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false,
        "The message format of the log cannot hold what the request needs.";
    PolicyViolation = 44, "POLICY_VIOLATION", false, "A policy of the cluster refuses the change.";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false,
        "The sequence number does not follow the last one of this producer.";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", false, "The sequence number was seen before.";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", false,
        "The producer's epoch is older than the newest one known.";
    InvalidTxnState = 48, "INVALID_TXN_STATE", false,
        "The transaction is in no state in which this can be done.";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", false,
        "The producer id is not the one that belongs to the transactional id.";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", false,
        "The transaction timeout is longer than the broker allows.";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", true,
        "The previous change of this transaction is not finished yet.";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", false,
        "The transaction coordinator that sent the marker has been replaced since.";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false,
        "The client may not use this transactional id.";
    SecurityDisabled = 54, "SECURITY_DISABLED", false, "Security is switched off on this cluster.";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", false,
        "This part of the request was not tried because another part failed.";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", true, "The disk under the partition failed.";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", false, "The log directory does not exist on the broker.";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", false, "The credentials were not accepted.";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", false,
        "The broker has no state of this producer any more.";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", false,
        "The copies of the partition are being moved already.";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", false,
        "Delegation tokens are not offered on this connection.";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", false, "The delegation token does not exist.";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", false,
        "The delegation token belongs to somebody else.";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false,
        "Delegation tokens cannot be handled over this kind of connection.";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false,
        "The client may not do this with the delegation token.";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", false, "The delegation token has expired.";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", false, "The kind of principal is not supported.";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", false, "The group still has members.";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", false, "The group does not exist.";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", true,
        "The fetch session does not exist; it may have made room for another one.";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", true,
        "The epoch does not follow the last one of the fetch session.";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", true,
        "The leader has no listener of the name the request came in through.";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", false,
        "Topics cannot be deleted on this cluster; see `delete.topic.enable`.";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", true,
        "The leader epoch of the client is older than the broker's.";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", true,
        "The leader epoch of the client is newer than the broker's.";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", false,
        "The codec of the batch is unknown, or too new for the version of the request.";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", false,
        "The broker has registered anew since it sent the request.";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", true,
        "The leader does not know the end of the partition yet; try again shortly.";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", false,
        "The member must join again with the id it was just given.";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", true,
        "The first copy of the partition cannot lead now.";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", false,
        "The group has as many members as it may have.";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", false,
        "Another member of the same instance id has taken this one's place.";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true,
        "None of the copies that may lead is available.";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", true, "The partition has the right leader already.";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", false,
        "The copies of the partition are not being moved.";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", false,
        "The group still subscribes to the topic.";
    InvalidRecord = 87, "INVALID_RECORD", false,
        "The records break a rule of the record format or of the topic.";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", true,
        "Offsets of a transaction are pending; try again when it has ended.";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", true,
        "The client has used up its quota; it may try again later.";
    ProducerFenced = 90, "PRODUCER_FENCED", false,
        "A newer instance with the same transactional id has taken over.";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", false, "What the request refers to does not exist.";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", false,
        "What the request wants to make exists already, or the request names it twice.";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", false, "The new credential is not acceptable.";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", false,
        "The voters of the sender are not those of the receiver.";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", false,
        "The feature level asked for is none that can be set.";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", false, "The features could not be changed.";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", false,
        "The principal forwarded with the request cannot be read.";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", false, "The snapshot does not exist.";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", false, "The position lies outside of the snapshot.";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", true, "The broker does not know a topic of this id.";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", false,
        "Another broker with the same id is alive.";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", false, "The broker id is not registered.";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", true,
        "The id of the topic is not the one the log has; the topic was made anew.";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", false,
        "The cluster id of the sender is not this cluster's.";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", false,
        "The transactional id does not exist.";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", true,
        "The fetch session changed between topic names and topic ids.";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", false,
        "A broker that was named cannot be a copy in sync now.";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", false,
        "The partition got a new leader by this very request.";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", false,
        "The offset lies in remote storage already.";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", false,
        "The epoch of the member is not the group's newest; it must join again.";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", false,
        "The instance id still belongs to another member of the group.";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", false, "The group does not offer this assignor.";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", false,
        "The epoch of the member is older than the coordinator's.";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", false,
        "The request came to a broker but is for a controller, or the other way round.";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", false, "The kind of endpoint is unknown.";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", false, "The controller id is not known.";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", false,
        "The subscription to client metrics has changed; ask for it again.";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", false,
        "The metrics pushed are larger than the broker takes.";
    InvalidRegistration = 119, "INVALID_REGISTRATION", false,
        "The registration of the controller is not acceptable.";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", false,
        "The transaction cannot go on; abort it and begin another one.";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", false,
        "The record is in no state in which this can be done.";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", true,
        "The share session does not exist; it may have made room for another one.";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", true,
        "The epoch does not follow the last one of the share session.";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", false,
        "The state of the share group is newer than the request.";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", false, "The key of the voter is not the receiver's.";
    DuplicateVoter = 126, "DUPLICATE_VOTER", false, "The voter is in the set already.";
    VoterNotFound = 127, "VOTER_NOT_FOUND", false, "The voter is not in the set.";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", false,
        "The regular expression cannot be read.";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", false,
        "What the client knows of the cluster is stale; it must begin again at its bootstrap addresses.";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", false,
        "The topology of the streams application cannot be carried out.";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", false,
        "The epoch of the topology is none that can follow.";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", false,
        "The epoch of the topology is older than the group's.";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", true,
        "The broker keeps as many share sessions as it may.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_names_and_messages_are_whole() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.code(), position as i16 - 1, "the codes have no gap");
            assert_eq!(ErrorCode::from_code(code.code()), *code);
            // A name in capitals and a variant in camel case are the same words.
            let words: String = code
                .name()
                .split('_')
                .map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()))
                .collect();
            assert_eq!(words, format!("{code:?}"));
            let message = code.message();
            assert!(message.ends_with('.') && message.matches(". ").count() == 0, "{message}");
        }
    }

    #[test]
    fn an_unknown_number_is_an_unknown_error() {
        assert_eq!(ErrorCode::from_code(9999), ErrorCode::UnknownServerError);
        assert_eq!(ErrorCode::from_code(-2), ErrorCode::UnknownServerError);
    }

    #[test]
    fn retriable_errors_are_kafkas() {
        let retriable: Vec<i16> =
            ErrorCode::ALL.iter().filter(|code| code.retriable()).map(|code| code.code()).collect();
        // Read off the exceptions of Kafka 4.3.1.
        let expected = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89,
            100, 103, 106, 122, 123, 133,
        ];
        assert_eq!(retriable, expected);
    }
}
