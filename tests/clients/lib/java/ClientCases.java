import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** The cases that every release of the Java client from 2.8 on can run. */
final class ClientCases {
    private static final long BASE_TIME = 1_700_000_000_000L;

    private ClientCases() {}

    static void addAll() {
        // First, since they wait.
        CompactionCases.addAll();
        Harness.add("create-and-list-topic", ClientCases::createAndList);
        Harness.add("create-topic-validate-only", ClientCases::validateOnly);
        Harness.add("describe-and-alter-configs", ClientCases::alterConfigs);
        Harness.add("describe-cluster", ClientCases::describeCluster);
        Harness.add("create-partitions", ClientCases::createPartitions);
        Harness.add("delete-records", ClientCases::deleteRecords);
        Harness.add("delete-and-recreate-topic", ClientCases::deleteAndRecreate);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                Harness.add("produce-" + codec + "-acks-" + acks, () -> produceWith(codec, acks));
            }
        }
        Harness.add("produce-idempotent", ClientCases::produceIdempotent);
        Harness.add("round-trip", ClientCases::roundTrip);
        Harness.add("large-record", ClientCases::largeRecord);
        Harness.add("too-large-record", ClientCases::tooLargeRecord);
        Harness.add("auto-create", ClientCases::autoCreate);
        Harness.add("consume-from-offset", ClientCases::consumeFromOffset);
        Harness.add("consume-by-timestamp", ClientCases::consumeByTimestamp);
        Harness.add("offset-reset", ClientCases::offsetReset);
        Harness.add("concurrent-order", ClientCases::concurrentOrder);
        Harness.role("member", ClientCases::member);
        Harness.add("group-of-one", ClientCases::groupOfOne);
        for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            Harness.add("group-join-and-leave-" + assignor, () -> joinAndLeave(assignor));
        }
        Harness.add("group-member-dies", ClientCases::memberDies);
        Harness.add("group-static-member-returns", ClientCases::staticMemberReturns);
        Harness.add("commits", ClientCases::commits);
        Harness.add("admin-groups", ClientCases::adminGroups);
        Harness.addExclusive("long-poll-latency", ClientCases::longPollLatency);
        Harness.addExclusive("commits-survive-kill", ClientCases::commitsSurviveKill);
        Harness.addExclusive("idempotent-produce-over-kill", ClientCases::produceOverKill);
        Harness.addExclusive("group-lives-over-clean-restart", ClientCases::groupOverRestart);
    }

    // ------------------------------------------------------------ topics and configs

    private static void createAndList() throws Exception {
        String topic = Clients.create("topics", 3, Map.of("retention.ms", "123456"));
        try (Admin admin = Clients.admin()) {
            Harness.check(Clients.get(admin.listTopics().names()).contains(topic), "the topic is listed");
            Harness.fails(TopicExistsException.class,
                () -> Clients.get(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all()), "twice");
            Harness.fails(InvalidTopicException.class,
                () -> Clients.get(admin.createTopics(List.of(new NewTopic("no/such", 1, (short) 1))).all()), "bad name");
            Harness.fails(InvalidReplicationFactorException.class,
                () -> Clients.get(admin.createTopics(List.of(new NewTopic("rf", 1, (short) 9))).all()), "replicas");
        }
    }

    private static void validateOnly() throws Exception {
        String topic = Harness.unique("validated");
        try (Admin admin = Clients.admin()) {
            CreateTopicsResult result = admin.createTopics(
                List.of(new NewTopic(topic, 2, (short) 1)), new CreateTopicsOptions().validateOnly(true));
            Clients.get(result.all());
            Harness.equal(Clients.get(result.numPartitions(topic)), 2, "partitions told");
            Harness.check(Clients.get(result.config(topic)).get("retention.ms") != null, "configs are told");
            Harness.check(!Clients.get(admin.listTopics().names()).contains(topic), "validate-only created the topic");
        }
    }

    private static Config configOf(Admin admin, ConfigResource resource) throws Exception {
        return Clients.get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private static void alterConfigs() throws Exception {
        String topic = Clients.create("configs", 1, Map.of("retention.ms", "100000"));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Clients.admin()) {
            ConfigEntry retention = configOf(admin, resource).get("retention.ms");
            Harness.equal(retention.value(), "100000", "retention.ms");
            Harness.equal(retention.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "its source");
            Harness.equal(configOf(admin, resource).get("segment.bytes").source(),
                ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source of a default");
            Clients.get(admin.incrementalAlterConfigs(Map.of(resource, List.of(
                new AlterConfigOp(new ConfigEntry("segment.ms", "777777"), AlterConfigOp.OpType.SET),
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
                new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE)))).all());
            Harness.until("segment.ms", () -> configOf(admin, resource).get("segment.ms").value().equals("777777"));
            Config config = configOf(admin, resource);
            Harness.check(config.get("cleanup.policy").value().contains("compact"), "appended policy");
            Harness.equal(config.get("retention.ms").value(), "604800000", "retention.ms by default");
            AlterConfigOp bad = new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET);
            Harness.fails(InvalidConfigurationException.class, () -> Clients.get(
                admin.incrementalAlterConfigs(Map.of(resource, List.of(bad))).all()), "a value of the wrong type");
        }
    }

    private static void describeCluster() throws Exception {
        try (Admin admin = Clients.admin()) {
            var cluster = admin.describeCluster();
            Harness.equal(Clients.get(cluster.nodes()).size(), 1, "brokers");
            Harness.check(Clients.get(cluster.controller()) != null, "there is a controller");
            Harness.check(!Clients.get(cluster.clusterId()).isEmpty(), "the cluster has an id");
            String node = Clients.get(cluster.nodes()).iterator().next().idString();
            Config config = configOf(admin, new ConfigResource(ConfigResource.Type.BROKER, node));
            Harness.equal(config.get("group.initial.rebalance.delay.ms").value(), "100", "a config set at start");
        }
    }

    private static void createPartitions() throws Exception {
        String topic = Clients.create("grow", 1);
        try (Admin admin = Clients.admin()) {
            Clients.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
            Clients.awaitLeaders(admin, topic, 4);
            Clients.send(topic, 3, Harness.payload(1, 10));
            Harness.equal(Clients.read(topic, 3, 0, 1).size(), 1, "records of a new partition");
            Harness.fails(InvalidPartitionsException.class, () -> Clients.get(
                admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all()), "shrinking");
        }
    }

    private static void deleteRecords() throws Exception {
        String topic = Clients.create("trim", 1);
        TopicPartition place = new TopicPartition(topic, 0);
        Clients.send(topic, 0, Clients.payloads(100, 100));
        try (Admin admin = Clients.admin(); KafkaConsumer<byte[], byte[]> consumer = Clients.consumer("trim")) {
            var deleted = admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(40))).lowWatermarks();
            Harness.equal(Clients.get(deleted.get(place)).lowWatermark(), 40L, "low watermark");
            Harness.equal(consumer.beginningOffsets(List.of(place)).get(place), 40L, "beginning");
            Harness.equal(consumer.endOffsets(List.of(place)).get(place), 100L, "end");
            Harness.fails(OffsetOutOfRangeException.class, () -> Clients.get(
                admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(1000))).all()), "beyond the end");
        }
        Clients.equalValues(Clients.read(topic, 0, 40, 60),
            Arrays.copyOfRange(Clients.payloads(100, 100), 40, 100), "values left");
    }

    private static void deleteAndRecreate() throws Exception {
        String topic = Clients.create("gone", 1);
        Clients.send(topic, 0, Harness.payload(1, 10));
        try (Admin admin = Clients.admin()) {
            Clients.get(admin.deleteTopics(List.of(topic)).all());
            Harness.until("the topic is gone", () -> !Clients.get(admin.listTopics().names()).contains(topic));
            Harness.fails(UnknownTopicOrPartitionException.class,
                () -> Clients.get(admin.deleteTopics(List.of(topic)).all()), "deleting twice");
            Clients.get(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all());
            Clients.awaitLeaders(admin, topic, 1);
        }
        Harness.equal(Clients.send(topic, 0, Harness.payload(2, 10)), List.of(0L), "offset in the new topic");
        Clients.equalValues(Clients.read(topic, 0, 0, 1), new byte[][] {Harness.payload(2, 10)}, "content");
    }

    // ------------------------------------------------------------ produce and consume

    private static void produceWith(String codec, String acks) throws Exception {
        String topic = Clients.create("codec-" + codec, 1);
        byte[][] values = Clients.payloads(200, 300);
        try (KafkaProducer<byte[], byte[]> producer = Clients.producer("compression.type", codec, "acks", acks,
                "enable.idempotence", false, "linger.ms", 20)) {
            Clients.send(producer, topic, 0, values);
        }
        List<ConsumerRecord<byte[], byte[]>> records = Clients.read(topic, 0, 0, 200);
        Clients.equalValues(records, values, "values");
        for (int n = 0; n < 200; n++) {
            Harness.equal(records.get(n).offset(), (long) n, "offset");
        }
    }

    private static void produceIdempotent() throws Exception {
        String topic = Clients.create("idempotent", 1);
        byte[][] values = Clients.payloads(2000, 100);
        try (KafkaProducer<byte[], byte[]> producer =
                Clients.producer("enable.idempotence", true, "acks", "all", "batch.size", 4096, "linger.ms", 1)) {
            Clients.send(producer, topic, 0, values);
        }
        Clients.equalValues(Clients.read(topic, 0, 0, 2000), values, "values");
    }

    private static void roundTrip() throws Exception {
        String topic = Clients.create("round-trip", 1);
        byte[] all = new byte[256];
        for (int n = 0; n < 256; n++) {
            all[n] = (byte) n;
        }
        List<Header> headers = List.of(new RecordHeader("a", new byte[] {1}), new RecordHeader("a", new byte[] {2}),
            new RecordHeader("empty", new byte[0]), new RecordHeader("ключ", null));
        List<ProducerRecord<byte[], byte[]>> sent = List.of(
            new ProducerRecord<>(topic, 0, BASE_TIME, "key".getBytes(), "value".getBytes(), headers),
            new ProducerRecord<>(topic, 0, BASE_TIME + 1, null, "no key".getBytes()),
            new ProducerRecord<>(topic, 0, BASE_TIME + 2, "null value".getBytes(), (byte[]) null),
            new ProducerRecord<>(topic, 0, BASE_TIME + 3, new byte[0], new byte[0]),
            new ProducerRecord<>(topic, 0, BASE_TIME + 4, all, all.clone()));
        try (KafkaProducer<byte[], byte[]> producer = Clients.producer()) {
            for (ProducerRecord<byte[], byte[]> record : sent) {
                producer.send(record).get(Harness.WAIT_MS, TimeUnit.MILLISECONDS);
            }
        }
        List<ConsumerRecord<byte[], byte[]>> found = Clients.read(topic, 0, 0, sent.size());
        for (int n = 0; n < sent.size(); n++) {
            Harness.check(Arrays.equals(found.get(n).key(), sent.get(n).key()), "key " + n);
            Harness.check(Arrays.equals(found.get(n).value(), sent.get(n).value()), "value " + n);
            Harness.equal(found.get(n).timestamp(), BASE_TIME + n, "timestamp");
            Harness.equal(found.get(n).headers(), sent.get(n).headers(), "headers");
        }
    }

    private static void largeRecord() throws Exception {
        String topic = Clients.create("large", 1);
        byte[][] values = Clients.payloads(3, 950_000);
        Clients.send(topic, 0, values);
        Clients.equalValues(Clients.read(topic, 0, 0, 3), values, "values");
    }

    private static void tooLargeRecord() throws Exception {
        String topic = Clients.create("too-large", 1, Map.of("max.message.bytes", "50000"));
        Harness.fails(RecordTooLargeException.class,
            () -> Clients.send(topic, 0, Harness.payload(1, 60_000)), "a record too large");
        Clients.send(topic, 0, Harness.payload(2, 10));
        Clients.equalValues(Clients.read(topic, 0, 0, 1), new byte[][] {Harness.payload(2, 10)}, "the one after");
    }

    private static void autoCreate() throws Exception {
        String topic = Harness.unique("auto");
        try (KafkaProducer<byte[], byte[]> producer = Clients.producer()) {
            RecordMetadata place = producer.send(new ProducerRecord<>(topic, Harness.payload(1, 10)))
                .get(Harness.WAIT_MS, TimeUnit.MILLISECONDS);
            Harness.equal(place.offset(), 0L, "offset");
        }
        Harness.equal(Clients.read(topic, 0, 0, 1).size(), 1, "records");
    }

    private static void consumeFromOffset() throws Exception {
        String topic = Clients.create("from-offset", 1);
        byte[][] values = Clients.payloads(500, 100);
        try (KafkaProducer<byte[], byte[]> producer =
                Clients.producer("compression.type", "lz4", "linger.ms", 100, "batch.size", 100_000)) {
            Clients.send(producer, topic, 0, values);
        }
        for (int offset : new int[] {0, 1, 137, 498, 499}) {
            List<ConsumerRecord<byte[], byte[]>> found = Clients.read(topic, 0, offset, 500 - offset);
            Harness.equal(found.get(0).offset(), (long) offset, "first offset");
            Clients.equalValues(found, Arrays.copyOfRange(values, offset, 500), "values from " + offset);
        }
    }

    private static void consumeByTimestamp() throws Exception {
        String topic = Clients.create("by-time", 1);
        TopicPartition place = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer =
                Clients.producer("compression.type", "zstd", "linger.ms", 100, "batch.size", 100_000)) {
            for (int n = 0; n < 100; n++) {
                producer.send(new ProducerRecord<>(topic, 0, BASE_TIME + n * 10, null, Harness.payload(n, 100)));
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer("by-time"); Admin admin = Clients.admin()) {
            for (long[] pair : new long[][] {{0, 0}, {505, 51}, {990, 99}}) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(place, BASE_TIME + pair[0])).get(place);
                Harness.equal(found.offset(), pair[1], "offset for +" + pair[0]);
                Harness.equal(found.timestamp(), BASE_TIME + pair[1] * 10, "its timestamp");
            }
            Harness.equal(consumer.offsetsForTimes(Map.of(place, BASE_TIME + 991)).get(place), null, "after the last");
            for (OffsetSpec spec : List.of(OffsetSpec.earliest(), OffsetSpec.latest())) {
                long wanted = spec instanceof OffsetSpec.EarliestSpec ? 0 : 100;
                var listed = Clients.get(admin.listOffsets(Map.of(place, spec)).all()).get(place);
                Harness.equal(listed.offset(), wanted, "offset for " + spec);
            }
        }
    }

    private static void offsetReset() throws Exception {
        String topic = Clients.create("reset", 1);
        TopicPartition place = new TopicPartition(topic, 0);
        Clients.send(topic, 0, Harness.payload(1, 10));
        for (String policy : List.of("earliest", "latest", "none")) {
            try (KafkaConsumer<byte[], byte[]> consumer =
                    Clients.consumer(Harness.unique("reset"), "auto.offset.reset", policy)) {
                consumer.assign(List.of(place));
                if (policy.equals("none")) {
                    Harness.fails(NoOffsetForPartitionException.class, () -> Clients.take(consumer, 1), policy);
                } else {
                    Harness.equal(consumer.position(place), policy.equals("earliest") ? 0L : 1L, "position by " + policy);
                }
            }
        }
    }

    private static void concurrentOrder() throws Exception {
        String topic = Clients.create("concurrent", 4);
        int count = 1500;
        List<Thread> threads = new ArrayList<>();
        for (int who = 0; who < 3; who++) {
            String prefix = who + ":";
            Thread thread = new Thread(() -> {
                try (KafkaProducer<byte[], byte[]> producer =
                        Clients.producer("linger.ms", 1, "enable.idempotence", true, "acks", "all")) {
                    for (int n = 0; n < count; n++) {
                        producer.send(new ProducerRecord<>(topic, n % 4, null, (prefix + n).getBytes()));
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        Map<String, Integer> last = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(Harness.unique("concurrent"))) {
            consumer.subscribe(List.of(topic));
            for (ConsumerRecord<byte[], byte[]> record : Clients.take(consumer, 3 * count)) {
                String[] words = new String(record.value(), StandardCharsets.UTF_8).split(":");
                int n = Integer.parseInt(words[1]);
                Integer previous = last.put(record.partition() + "/" + words[0], n);
                Harness.check(previous == null || n > previous,
                    "producer " + words[0] + ", partition " + record.partition() + ": " + n + " after " + previous);
            }
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }

    // ------------------------------------------------------------ groups

    /** A child: a group member that tells its partitions whenever they change; SIGTERM makes it leave. */
    private static void member(String[] words) throws Exception {
        String topic = words[1];
        List<Object> settings = new ArrayList<>(List.of("partition.assignment.strategy",
            "org.apache.kafka.clients.consumer." + words[2]));
        if (words.length > 3) {
            settings.addAll(List.of("group.instance.id", words[3]));
        }
        KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(words[0], settings.toArray());
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                closed.await(10, TimeUnit.SECONDS);
            } catch (InterruptedException ignored) {
                // The process is ending anyway.
            }
        }));
        Set<Integer> owned = new HashSet<>();
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                partitions.forEach(p -> owned.remove(p.partition()));
                Harness.tellAssigned(owned);
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                partitions.forEach(p -> owned.add(p.partition()));
                Harness.tellAssigned(owned);
            }
        });
        try {
            for (;;) {
                consumer.poll(Duration.ofMillis(200))
                    .forEach(r -> System.out.println("got " + r.partition() + " " + r.offset()));
            }
        } catch (WakeupException leaving) {
            consumer.close();
        } finally {
            closed.countDown();
        }
    }

    private static Harness.Child spawn(String... words) throws Exception {
        return Harness.Child.role("member", words);
    }

    private static void groupOfOne() throws Exception {
        String topic = Clients.create("one", 3);
        String group = Harness.unique("one");
        for (int partition = 0; partition < 3; partition++) {
            Clients.send(topic, partition, Harness.payload(partition, 10));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.subscribe(List.of(topic));
            Harness.equal(Clients.take(consumer, 3).size(), 3, "records");
            consumer.commitSync();
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.subscribe(List.of(topic));
            Clients.send(topic, 1, Harness.payload(7, 10));
            Clients.equalValues(Clients.take(consumer, 1), new byte[][] {Harness.payload(7, 10)}, "the later record");
        }
    }

    private static void joinAndLeave(String assignor) throws Exception {
        String topic = Clients.create("join", 4);
        String group = Harness.unique("join");
        try (Harness.Child first = spawn(group, topic, assignor)) {
            first.owns(4, "the only member owns all");
            try (Harness.Child second = spawn(group, topic, assignor)) {
                Set<Integer> all = new HashSet<>(second.owns(2, "the second member's half"));
                all.addAll(first.owns(2, "the first member's half"));
                Harness.equal(all, Set.of(0, 1, 2, 3), "together they own all");
                second.end();
            }
            first.owns(4, "all again after the second left");
        }
    }

    private static void memberDies() throws Exception {
        String topic = Clients.create("die", 4);
        String group = Harness.unique("die");
        try (Harness.Child first = spawn(group, topic, "RangeAssignor");
                Harness.Child second = spawn(group, topic, "RangeAssignor")) {
            first.owns(2, "the first member's half");
            second.owns(2, "the second member's half");
            second.close();
            first.owns(4, "the rest takes over");
            Clients.send(topic, 3, Harness.payload(1, 10));
            first.waitLine("a record of a partition taken over", line -> line.equals("got 3 0"));
        }
    }

    private static void staticMemberReturns() throws Exception {
        String topic = Clients.create("static", 2);
        String group = Harness.unique("static");
        try (Harness.Child first = spawn(group, topic, "RangeAssignor", "a")) {
            first.owns(2, "all");
            Set<Integer> other;
            try (Harness.Child second = spawn(group, topic, "RangeAssignor", "b")) {
                other = second.owns(1, "the second half");
            }
            int mine = first.owns(1, "the first half").iterator().next();
            try (Harness.Child returned = spawn(group, topic, "RangeAssignor", "b")) {
                Harness.equal(returned.owns(1, "its old partition"), other, "partition of the returned member");
                Clients.send(topic, mine, Harness.payload(1, 10));
                String line = first.waitLine("the record", l -> l.startsWith("got") || l.startsWith("assigned"));
                Harness.equal(line, "got " + mine + " 0", "what the untouched member saw");
            }
        }
    }

    private static void commits() throws Exception {
        String topic = Clients.create("commits", 2);
        String group = Harness.unique("commits");
        TopicPartition place = new TopicPartition(topic, 0);
        TopicPartition other = new TopicPartition(topic, 1);
        Clients.send(topic, 0, Clients.payloads(10, 10));
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.assign(List.of(place, other));
            Clients.take(consumer, 10);
            consumer.commitSync(Map.of(place, new OffsetAndMetadata(4, "kept: žluť")));
            Map<TopicPartition, OffsetAndMetadata> found = consumer.committed(Set.of(place, other));
            Harness.equal(found.get(place).offset(), 4L, "committed");
            Harness.equal(found.get(place).metadata(), "kept: žluť", "its metadata");
            Harness.equal(found.get(other), null, "the other partition");
            AtomicBoolean done = new AtomicBoolean();
            consumer.commitAsync(Map.of(place, new OffsetAndMetadata(7)), (offsets, error) -> done.set(error == null));
            Harness.until("the asynchronous commit", () -> {
                consumer.poll(Duration.ofMillis(10));
                return done.get();
            });
            Harness.equal(consumer.committed(Set.of(place)).get(place).offset(), 7L, "committed");
        }
    }

    private static void adminGroups() throws Exception {
        String topic = Clients.create("admin-groups", 2);
        String group = Harness.unique("admin-groups");
        TopicPartition place = new TopicPartition(topic, 0);
        Clients.send(topic, 0, Clients.payloads(10, 10));
        try (Admin admin = Clients.admin()) {
            Map<TopicPartition, OffsetAndMetadata> three = Map.of(place, new OffsetAndMetadata(3, "m"));
            try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
                consumer.subscribe(List.of(topic));
                Clients.take(consumer, 10);
                consumer.commitSync();
                var described = Clients.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
                Harness.equal(described.members().size(), 1, "members");
                Harness.equal(described.members().iterator().next().assignment().topicPartitions().size(), 2, "owned");
                Harness.check(Clients.get(admin.listConsumerGroups().all()).stream()
                    .anyMatch(listing -> listing.groupId().equals(group)), "the group is listed");
                Harness.fails(GroupNotEmptyException.class,
                    () -> Clients.get(admin.deleteConsumerGroups(List.of(group)).all()), "deleting a live group");
                Harness.fails(UnknownMemberIdException.class,
                    () -> Clients.get(admin.alterConsumerGroupOffsets(group, three).all()), "altering a live group");
            }
            Harness.until("an empty group", () -> Clients.get(admin.describeConsumerGroups(List.of(group)).all())
                .get(group).members().isEmpty());
            Harness.equal(Clients.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
                .get(place).offset(), 10L, "offsets of the group");
            Clients.get(admin.alterConsumerGroupOffsets(group, three).all());
            Harness.equal(Clients.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
                .get(place).metadata(), "m", "metadata of the altered offset");
            Clients.get(admin.deleteConsumerGroupOffsets(group, Set.of(place)).all());
            Clients.get(admin.alterConsumerGroupOffsets(group, three).all());
            Clients.get(admin.deleteConsumerGroups(List.of(group)).all());
            Harness.fails(GroupIdNotFoundException.class,
                () -> Clients.get(admin.deleteConsumerGroups(List.of(group)).all()), "deleting twice");
        }
    }

    // ------------------------------------------------------------ alone: restarts and times

    private static void longPollLatency() throws Exception {
        String topic = Clients.create("latency", 1);
        int slow = 0;
        try (KafkaConsumer<byte[], byte[]> consumer =
                    Clients.consumer(Harness.unique("latency"), "fetch.max.wait.ms", 5000);
                KafkaProducer<byte[], byte[]> producer = Clients.producer("linger.ms", 0)) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            Clients.send(producer, topic, 0, Harness.payload(0, 10));
            Clients.take(consumer, 1);
            for (int n = 0; n < 20; n++) {
                long started = System.nanoTime();
                Clients.send(producer, topic, 0, Harness.payload(n, 10));
                Clients.take(consumer, 1);
                if (System.nanoTime() - started > 250_000_000L) {
                    slow++;
                }
            }
        }
        Harness.check(slow < 10, "a waiting fetch is answered late: " + slow + " of 20 took more than 250 ms");
    }

    private static void commitsSurviveKill() throws Exception {
        String topic = Clients.create("survive", 1);
        String group = Harness.unique("survive");
        TopicPartition place = new TopicPartition(topic, 0);
        byte[][] values = Clients.payloads(100, 100);
        Clients.send(topic, 0, values);
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.subscribe(List.of(topic));
            Clients.take(consumer, 60);
            consumer.commitSync(Map.of(place, new OffsetAndMetadata(60, "before")));
        }
        Harness.restart("KILL");
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            OffsetAndMetadata found = consumer.committed(Set.of(place)).get(place);
            Harness.equal(found.offset() + " " + found.metadata(), "60 before", "committed after kill -9");
            consumer.subscribe(List.of(topic));
            Clients.equalValues(Clients.take(consumer, 40), Arrays.copyOfRange(values, 60, 100), "the rest");
        }
    }

    private static void produceOverKill() throws Exception {
        String topic = Clients.create("in-flight", 1);
        byte[][] values = Clients.payloads(4000, 100);
        AtomicInteger delivered = new AtomicInteger();
        AtomicBoolean restarted = new AtomicBoolean();
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                Clients.producer("enable.idempotence", true, "acks", "all", "linger.ms", 2, "batch.size", 4096)) {
            Thread thread = new Thread(() -> {
                for (int n = 0; n < values.length; n++) {
                    futures.add(producer.send(new ProducerRecord<>(topic, 0, null, values[n]),
                        (place, error) -> delivered.addAndGet(error == null ? 1 : 0)));
                    if (n > 2000 && !restarted.get()) {
                        sleep(2);
                    }
                }
            });
            thread.start();
            Harness.until("the first deliveries", () -> delivered.get() > 1500);
            Harness.restart("KILL");
            restarted.set(true);
            thread.join();
            producer.flush();
        }
        for (int n = 0; n < values.length; n++) {
            Harness.equal(offsetOf(futures.get(n)), (long) n, "offset of record " + n);
        }
        Clients.equalValues(Clients.read(topic, 0, 0, values.length), values, "each once and in order");
    }

    private static long offsetOf(Future<RecordMetadata> future) throws Exception {
        try {
            return future.get(1, TimeUnit.SECONDS).offset();
        } catch (ExecutionException error) {
            throw new Harness.Failure("a record was not delivered: " + error.getCause());
        }
    }

    private static void sleep(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void groupOverRestart() throws Exception {
        String topic = Clients.create("restart", 2);
        try (Harness.Child first = spawn(Harness.unique("restart"), topic, "CooperativeStickyAssignor")) {
            first.owns(2, "all");
            Clients.send(topic, 0, Harness.payload(1, 10));
            first.waitLine("the record before", line -> line.equals("got 0 0"));
            Harness.restart("TERM");
            Clients.send(topic, 0, Harness.payload(2, 10));
            first.waitLine("the record after", line -> line.equals("got 0 1"));
        }
    }
}
