import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;

/** The Java client of Kafka 4.x, and the tools that ship with it. */
final class Suite {
    private static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";
    private static final String PRODUCER = "org.apache.kafka.tools.ConsoleProducer";
    private static final String CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    private static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    private static final String OFFSETS = "org.apache.kafka.tools.GetOffsetShell";

    private Suite() {}

    public static void main(String[] words) throws Exception {
        // The tools first: they take longest.
        Harness.add("tool-topics", Suite::topics);
        Harness.add("tool-consumer-groups", Suite::consumerGroups);
        Harness.add("tool-configs", Suite::configs);
        Harness.add("tool-console", Suite::console);
        Harness.add("tool-get-offsets", Suite::getOffsets);
        Harness.add("tool-delete-records", Suite::deleteRecords);
        Harness.add("tool-performance", Suite::performance);
        Harness.add("tool-verifiable", Suite::verifiable);
        Harness.add("tool-dump-log", Suite::dumpLog);
        Harness.add("tool-api-versions", Suite::apiVersions);
        ClientCases.addAll();
        Harness.add("describe-topics-by-name-and-id", Suite::describeTopics);
        Harness.add("list-offsets-of-every-kind", Suite::listOffsets);
        Harness.add("list-groups-and-offsets-in-bulk", Suite::groupsInBulk);
        Harness.main(words);
    }

    // ------------------------------------------------------------ what only a newer client asks

    private static void describeTopics() throws Exception {
        String topic = Clients.create("described", 3);
        try (Admin admin = Clients.admin()) {
            TopicDescription byName = Clients.get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
            Harness.equal(byName.partitions().size(), 3, "partitions");
            Harness.equal(byName.partitions().get(2).isr().size(), 1, "in-sync replicas");
            Harness.check(!byName.topicId().equals(Uuid.ZERO_UUID), "the topic has an id");
            Uuid id = byName.topicId();
            TopicDescription byId = Clients.get(
                admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds()).get(id);
            Harness.equal(byId.name(), topic, "name by id");
            Clients.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        }
    }

    private static void listOffsets() throws Exception {
        String topic = Clients.create("offsets", 1);
        TopicPartition place = new TopicPartition(topic, 0);
        Clients.send(topic, 0, Clients.payloads(10, 10));
        try (Admin admin = Clients.admin()) {
            Map<OffsetSpec, Long> wanted = Map.of(
                OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 10L, OffsetSpec.earliestLocal(), 0L,
                OffsetSpec.latestTiered(), -1L, OffsetSpec.forTimestamp(0), 0L);
            for (var pair : wanted.entrySet()) {
                var listed = Clients.get(admin.listOffsets(Map.of(place, pair.getKey())).all()).get(place);
                Harness.equal(listed.offset(), pair.getValue(), "offset for " + pair.getKey().getClass().getSimpleName());
            }
            var greatest = Clients.get(admin.listOffsets(Map.of(place, OffsetSpec.maxTimestamp())).all()).get(place);
            Harness.check(greatest.offset() >= 0 && greatest.offset() < 10, "offset of the greatest timestamp");
        }
    }

    private static void groupsInBulk() throws Exception {
        String topic = Clients.create("bulk", 1);
        TopicPartition place = new TopicPartition(topic, 0);
        List<String> groups = List.of(Harness.unique("bulk"), Harness.unique("bulk"));
        try (Admin admin = Clients.admin()) {
            for (String group : groups) {
                var offset = new org.apache.kafka.clients.consumer.OffsetAndMetadata(groups.indexOf(group) + 1);
                Clients.get(admin.alterConsumerGroupOffsets(group, Map.of(place, offset)).all());
            }
            ListConsumerGroupOffsetsSpec spec = new ListConsumerGroupOffsetsSpec();
            var all = Clients.get(admin.listConsumerGroupOffsets(Map.of(groups.get(0), spec, groups.get(1), spec)).all());
            Harness.equal(all.get(groups.get(0)).get(place).offset(), 1L, "offset of the first group");
            Harness.equal(all.get(groups.get(1)).get(place).offset(), 2L, "offset of the second group");
            var listed = Clients.get(admin.listGroups(new ListGroupsOptions().inGroupStates(
                java.util.Set.of(GroupState.EMPTY))).all()).stream().map(listing -> listing.groupId()).toList();
            Harness.check(listed.containsAll(groups), "both groups are listed as empty");
        }
    }

    // ------------------------------------------------------------ tools

    private static void topics() throws Exception {
        String topic = Harness.unique("tool-topic");
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--create", "--topic", topic, "--partitions", "3",
            "--replication-factor", "1", "--config", "retention.ms=123456")), "Created topic");
        Tool.contains(Tool.fail(TOPICS, Tool.atBroker("--create", "--topic", topic)), "already exists");
        Tool.run(TOPICS, Tool.atBroker("--create", "--if-not-exists", "--topic", topic));
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--list")), topic);
        String described = Tool.run(TOPICS, Tool.atBroker("--describe", "--topic", topic));
        Tool.contains(described, "PartitionCount: 3");
        Tool.contains(described, "retention.ms=123456");
        Tool.contains(described, "Partition: 2");
        Tool.run(TOPICS, Tool.atBroker("--alter", "--topic", topic, "--partitions", "4"));
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--describe", "--topic", topic)), "PartitionCount: 4");
        Harness.equal(Tool.run(TOPICS, Tool.atBroker("--describe", "--unavailable-partitions")).strip(), "",
            "unavailable partitions");
        Tool.run(TOPICS, Tool.atBroker("--delete", "--topic", topic));
        Harness.check(!Tool.run(TOPICS, Tool.atBroker("--list")).contains(topic), "the topic is gone");
    }

    private static void configs() throws Exception {
        String topic = Clients.create("tool-config", 1);
        String[] entity = {"--entity-type", "topics", "--entity-name", topic};
        Tool.run(CONFIGS, join(Tool.atBroker(entity), "--alter", "--add-config",
            "retention.ms=4000,cleanup.policy=[compact,delete]"));
        String described = Tool.run(CONFIGS, join(Tool.atBroker(entity), "--describe"));
        Tool.contains(described, "retention.ms=4000");
        Tool.contains(described, "DYNAMIC_TOPIC_CONFIG:retention.ms=4000");
        Tool.contains(described, "cleanup.policy=compact,delete");
        Tool.run(CONFIGS, join(Tool.atBroker(entity), "--alter", "--delete-config", "retention.ms"));
        Harness.check(!Tool.run(CONFIGS, join(Tool.atBroker(entity), "--describe")).contains("retention.ms="),
            "the config is gone");
        Tool.contains(Tool.run(CONFIGS, join(Tool.atBroker(entity), "--describe", "--all")), "segment.bytes=");
        Tool.contains(Tool.fail(CONFIGS, join(Tool.atBroker(entity), "--alter", "--add-config", "retention.ms=soon")),
            "retention.ms");
        String node = brokerId();
        Tool.contains(Tool.run(CONFIGS, Tool.atBroker("--entity-type", "brokers", "--entity-name", node, "--describe",
            "--all")), "group.initial.rebalance.delay.ms=100");
    }

    private static String brokerId() throws Exception {
        try (Admin admin = Clients.admin()) {
            return Clients.get(admin.describeCluster().nodes()).iterator().next().idString();
        }
    }

    private static String[] join(String[] first, String... second) {
        String[] all = Arrays.copyOf(first, first.length + second.length);
        System.arraycopy(second, 0, all, first.length, second.length);
        return all;
    }

    private static void console() throws Exception {
        String topic = Clients.create("tool-console", 1);
        Tool.runWithInput("k1:v1\nk2:žluť\n", PRODUCER, Tool.atBroker("--topic", topic, "--compression-codec", "zstd",
            "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"));
        String output = Tool.run(CONSUMER, Tool.atBroker("--topic", topic, "--from-beginning", "--max-messages", "2",
            "--timeout-ms", "20000", "--formatter-property", "print.key=true", "--formatter-property",
            "print.offset=true"));
        Tool.contains(output, "Offset:0\tk1\tv1");
        Tool.contains(output, "Offset:1\tk2\tžluť");
        Tool.contains(Tool.run(CONSUMER, Tool.atBroker("--topic", topic, "--partition", "0", "--offset", "1",
            "--max-messages", "1", "--timeout-ms", "20000")), "žluť");
    }

    private static void consumerGroups() throws Exception {
        String topic = Clients.create("tool-group", 1);
        String group = Harness.unique("tool-group");
        Clients.send(topic, 0, Clients.payloads(10, 10));
        String[] entity = {"--group", group};
        try (Harness.Child member = Harness.Child.role("member", group, topic, "RangeAssignor")) {
            member.owns(1, "all");
            Tool.contains(Tool.run(GROUPS, Tool.atBroker("--list", "--state", "Stable")), group);
            Tool.contains(Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe", "--members", "--verbose")), topic);
            Tool.contains(Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe", "--state")), "Stable");
            member.end();
        }
        String reset = Tool.run(GROUPS, join(Tool.atBroker(entity), "--reset-offsets", "--to-offset", "4", "--topic",
            topic, "--execute"));
        Tool.contains(reset, topic);
        String described = Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe"));
        Harness.check(described.replaceAll("\\s+", " ").contains(topic + " 0 4 10 6"), "offsets and lag: " + described);
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--reset-offsets", "--to-datetime", "2020-01-01T00:00:00.000",
            "--topic", topic, "--execute"));
        described = Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe"));
        Harness.check(described.replaceAll("\\s+", " ").contains(topic + " 0 0 10 10"), "offset by time: " + described);
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--delete-offsets", "--topic", topic));
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--reset-offsets", "--to-latest", "--topic", topic, "--execute"));
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--delete"));
        Harness.check(!Tool.run(GROUPS, Tool.atBroker("--list")).contains(group), "the group is gone");
    }

    private static void getOffsets() throws Exception {
        String topic = Clients.create("tool-offsets", 2);
        Clients.send(topic, 0, Clients.payloads(7, 10));
        String latest = Tool.run(OFFSETS, Tool.atBroker("--topic", topic));
        Tool.contains(latest, topic + ":0:7");
        Tool.contains(latest, topic + ":1:0");
        Tool.contains(Tool.run(OFFSETS, Tool.atBroker("--topic", topic, "--time", "earliest")), topic + ":0:0");
        Tool.contains(Tool.run(OFFSETS, Tool.atBroker("--topic-partitions", topic + ":0", "--time", "1000")),
            topic + ":0:0");
    }

    private static void deleteRecords() throws Exception {
        String topic = Clients.create("tool-trim", 1);
        Clients.send(topic, 0, Clients.payloads(10, 10));
        Path json = Tool.scratch(topic + ".json",
            "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0,\"offset\":6}]}");
        Tool.contains(Tool.run("org.apache.kafka.tools.DeleteRecordsCommand",
            Tool.atBroker("--offset-json-file", json.toString())), "low_watermark: 6");
        Tool.contains(Tool.run(OFFSETS, Tool.atBroker("--topic", topic, "--time", "-2")), topic + ":0:6");
    }

    private static void performance() throws Exception {
        String topic = Clients.create("tool-perf", 2);
        Tool.contains(Tool.run("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "20000",
            "--record-size", "200", "--throughput", "-1", "--bootstrap-server", Harness.BOOTSTRAP), "20000 records sent");
        String consumed = Tool.run("org.apache.kafka.tools.ConsumerPerformance", Tool.atBroker("--topic", topic,
            "--num-records", "20000", "--timeout", "20000", "--group", Harness.unique("tool-perf")));
        Tool.contains(consumed, ", 20000,");
    }

    private static void verifiable() throws Exception {
        String topic = Clients.create("tool-verifiable", 2);
        String produced = Tool.run("org.apache.kafka.tools.VerifiableProducer", Tool.atBroker("--topic", topic,
            "--max-messages", "500", "--acks", "-1"));
        Tool.contains(produced, "\"sent\":500,\"acked\":500");
        String consumed = Tool.run("org.apache.kafka.tools.VerifiableConsumer", Tool.atBroker("--topic", topic,
            "--group-id", Harness.unique("verifiable"), "--max-messages", "500", "--reset-policy", "earliest"));
        Tool.contains(consumed, "\"name\":\"offsets_committed\"");
    }

    private static void dumpLog() throws Exception {
        String topic = Clients.create("tool-dump", 1);
        String marker = Harness.unique("marker");
        Clients.send(topic, 0, marker.getBytes(), Harness.payload(2, 20_000), Harness.payload(3, 10));
        List<Path> files = Tool.segmentsHolding(marker);
        Harness.equal(files.size(), 1, "segment files that hold the record");
        String dumped = Tool.run("org.apache.kafka.tools.DumpLogSegments", "--files", files.get(0).toString(),
            "--print-data-log", "--deep-iteration");
        Tool.contains(dumped, "Log starting offset: 0");
        Tool.contains(dumped, "payload: " + marker);
        Tool.contains(dumped, "offset: 2 ");
        Tool.contains(dumped, "isvalid: true");
        Harness.check(!dumped.contains("isvalid: false"), "every batch is valid");
    }

    private static void apiVersions() throws Exception {
        String text = Tool.run("org.apache.kafka.tools.BrokerApiVersionsCommand", Tool.atBroker());
        for (String api : List.of("Produce(0): 0 to ", "Fetch(1): 4 to ", "ApiVersions(18): 0 to ")) {
            Tool.contains(text, api);
        }
        Tool.contains(Tool.run("org.apache.kafka.tools.GroupsCommand", Tool.atBroker("--list")), "");
    }
}
