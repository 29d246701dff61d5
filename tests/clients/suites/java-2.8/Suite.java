import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/** The Java client of Kafka 2.8, and the tools that shipped with it. */
final class Suite {
    private static final String TOPICS = "kafka.admin.TopicCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";
    private static final String GROUPS = "kafka.admin.ConsumerGroupCommand";
    private static final String CONSUMER = "kafka.tools.ConsoleConsumer";
    private static final String OFFSETS = "kafka.tools.GetOffsetShell";

    private Suite() {}

    public static void main(String[] words) throws Exception {
        // The tools first: they take longest.
        Harness.add("tool-topics", Suite::topics);
        Harness.add("tool-consumer-groups", Suite::consumerGroups);
        Harness.add("tool-configs", Suite::configs);
        Harness.add("tool-console", Suite::console);
        Harness.add("tool-offsets-and-delete-records", Suite::offsetsAndDeleteRecords);
        Harness.add("tool-performance", Suite::performance);
        Harness.add("tool-verifiable", Suite::verifiable);
        Harness.add("tool-dump-log", Suite::dumpLog);
        ClientCases.addAll();
        Harness.main(words);
    }

    private static String[] join(String[] first, String... second) {
        String[] all = Arrays.copyOf(first, first.length + second.length);
        System.arraycopy(second, 0, all, first.length, second.length);
        return all;
    }

    private static void topics() throws Exception {
        String topic = Harness.unique("tool-topic");
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--create", "--topic", topic, "--partitions", "3",
            "--replication-factor", "1", "--config", "retention.ms=123456")), "Created topic");
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--list")), topic);
        String described = Tool.run(TOPICS, Tool.atBroker("--describe", "--topic", topic));
        Tool.contains(described, "PartitionCount: 3");
        Tool.contains(described, "retention.ms=123456");
        Tool.run(TOPICS, Tool.atBroker("--alter", "--topic", topic, "--partitions", "4"));
        Tool.contains(Tool.run(TOPICS, Tool.atBroker("--describe", "--topic", topic)), "PartitionCount: 4");
        Tool.run(TOPICS, Tool.atBroker("--delete", "--topic", topic));
        Harness.check(!Tool.run(TOPICS, Tool.atBroker("--list")).contains(topic), "the topic is gone");
    }

    private static void configs() throws Exception {
        String topic = Clients.create("tool-config", 1);
        String[] entity = {"--entity-type", "topics", "--entity-name", topic};
        Tool.run(CONFIGS, join(Tool.atBroker(entity), "--alter", "--add-config", "retention.ms=4000"));
        Tool.contains(Tool.run(CONFIGS, join(Tool.atBroker(entity), "--describe")), "retention.ms=4000");
        Tool.run(CONFIGS, join(Tool.atBroker(entity), "--alter", "--delete-config", "retention.ms"));
        Harness.check(!Tool.run(CONFIGS, join(Tool.atBroker(entity), "--describe")).contains("retention.ms="),
            "the config is gone");
    }

    private static void console() throws Exception {
        String topic = Clients.create("tool-console", 1);
        Tool.runWithInput("k1:v1\nk2:žluť\n", "kafka.tools.ConsoleProducer", Tool.atBroker("--topic", topic,
            "--compression-codec", "gzip", "--property", "parse.key=true", "--property", "key.separator=:"));
        String output = Tool.run(CONSUMER, Tool.atBroker("--topic", topic, "--from-beginning", "--max-messages", "2",
            "--timeout-ms", "20000", "--property", "print.key=true"));
        Tool.contains(output, "k1\tv1");
        Tool.contains(output, "k2\tžluť");
    }

    private static void consumerGroups() throws Exception {
        String topic = Clients.create("tool-group", 1);
        String group = Harness.unique("tool-group");
        Clients.send(topic, 0, Clients.payloads(10, 10));
        String[] entity = {"--group", group};
        Tool.run(CONSUMER, Tool.atBroker("--topic", topic, "--from-beginning", "--max-messages", "10",
            "--timeout-ms", "20000", "--group", group));
        Tool.contains(Tool.run(GROUPS, Tool.atBroker("--list")), group);
        String described = Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe"));
        Harness.check(described.replaceAll("\\s+", " ").contains(topic + " 0 10 10 0"), "no lag: " + described);
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--reset-offsets", "--shift-by", "-6", "--topic", topic,
            "--execute"));
        described = Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe"));
        Harness.check(described.replaceAll("\\s+", " ").contains(topic + " 0 4 10 6"), "offsets and lag: " + described);
        Tool.contains(Tool.run(GROUPS, join(Tool.atBroker(entity), "--describe", "--state")), "Empty");
        Tool.run(GROUPS, join(Tool.atBroker(entity), "--delete"));
        Harness.check(!Tool.run(GROUPS, Tool.atBroker("--list")).contains(group), "the group is gone");
    }

    private static void offsetsAndDeleteRecords() throws Exception {
        String topic = Clients.create("tool-trim", 1);
        Clients.send(topic, 0, Clients.payloads(10, 10));
        Tool.contains(Tool.run(OFFSETS, "--broker-list", Harness.BOOTSTRAP, "--topic", topic), topic + ":0:10");
        Path json = Tool.scratch(topic + ".json",
            "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0,\"offset\":6}]}");
        Tool.contains(Tool.run("kafka.admin.DeleteRecordsCommand",
            Tool.atBroker("--offset-json-file", json.toString())), "low_watermark: 6");
        Tool.contains(Tool.run(OFFSETS, "--broker-list", Harness.BOOTSTRAP, "--topic", topic, "--time", "-2"),
            topic + ":0:6");
    }

    private static void performance() throws Exception {
        String topic = Clients.create("tool-perf", 2);
        Tool.contains(Tool.run("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "20000",
            "--record-size", "200", "--throughput", "-1", "--producer-props",
            "bootstrap.servers=" + Harness.BOOTSTRAP), "20000 records sent");
        Tool.contains(Tool.run("kafka.tools.ConsumerPerformance", Tool.atBroker("--topic", topic, "--messages", "20000",
            "--timeout", "20000", "--group", Harness.unique("tool-perf"))), ", 20000,");
    }

    private static void verifiable() throws Exception {
        String topic = Clients.create("tool-verifiable", 2);
        Tool.contains(Tool.run("org.apache.kafka.tools.VerifiableProducer", Tool.atBroker("--topic", topic,
            "--max-messages", "500", "--acks", "-1")), "\"sent\":500,\"acked\":500");
        Tool.contains(Tool.run("org.apache.kafka.tools.VerifiableConsumer", Tool.atBroker("--topic", topic,
            "--group-id", Harness.unique("verifiable"), "--max-messages", "500", "--reset-policy", "earliest")),
            "\"name\":\"offsets_committed\"");
    }

    private static void dumpLog() throws Exception {
        String topic = Clients.create("tool-dump", 1);
        String marker = Harness.unique("marker");
        Clients.send(topic, 0, marker.getBytes(), Harness.payload(2, 20_000), Harness.payload(3, 10));
        List<Path> files = Tool.segmentsHolding(marker);
        Harness.equal(files.size(), 1, "segment files that hold the record");
        String dumped = Tool.run("kafka.tools.DumpLogSegments", "--files", files.get(0).toString(),
            "--print-data-log", "--deep-iteration");
        Tool.contains(dumped, "payload: " + marker);
        Tool.contains(dumped, "isvalid: true");
    }
}
