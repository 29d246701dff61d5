import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java clients, and the small verbs that the cases are made of. */
final class Clients {
    private Clients() {}

    static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", Harness.BOOTSTRAP));
    }

    /** Settings given as key, value, key, value. */
    static KafkaProducer<byte[], byte[]> producer(Object... settings) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", Harness.BOOTSTRAP));
        put(config, settings);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String group, Object... settings) {
        Map<String, Object> config = new HashMap<>(Map.of(
            "bootstrap.servers", Harness.BOOTSTRAP, "auto.offset.reset", "earliest", "enable.auto.commit", false,
            "session.timeout.ms", Harness.SESSION_MS, "heartbeat.interval.ms", 500, "group.id", group));
        put(config, settings);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void put(Map<String, Object> config, Object... settings) {
        for (int n = 0; n < settings.length; n += 2) {
            config.put((String) settings[n], settings[n + 1]);
        }
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(Harness.WAIT_MS, TimeUnit.MILLISECONDS);
    }

    /** A new topic whose every partition has a leader. */
    static String create(String prefix, int partitions, Map<String, String> configs) throws Exception {
        String topic = Harness.unique(prefix);
        try (Admin admin = admin()) {
            get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
            awaitLeaders(admin, topic, partitions);
        }
        return topic;
    }

    static String create(String prefix, int partitions) throws Exception {
        return create(prefix, partitions, Map.of());
    }

    /** Returns once every partition answers for its end, which only its leader does. */
    static void awaitLeaders(Admin admin, String topic, int partitions) throws Exception {
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (int partition = 0; partition < partitions; partition++) {
            asked.put(new TopicPartition(topic, partition), OffsetSpec.latest());
        }
        Harness.until("leaders of " + topic, () -> {
            try {
                get(admin.listOffsets(asked).all());
                return true;
            } catch (ExecutionException error) {
                // Apache Kafka may not know a topic yet that it has just acknowledged. Vltava must.
                if (Harness.BROKER.equals("kafka") && error.getCause() instanceof UnknownTopicOrPartitionException) {
                    return false;
                }
                throw error;
            }
        });
    }

    static byte[][] payloads(int count, int size) {
        byte[][] values = new byte[count][];
        for (int n = 0; n < count; n++) {
            values[n] = Harness.payload(n, size);
        }
        return values;
    }

    /** Produces the values to one partition and waits for every answer; returns the offsets. */
    static List<Long> send(String topic, int partition, byte[]... values) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            return send(producer, topic, partition, values);
        }
    }

    static List<Long> send(KafkaProducer<byte[], byte[]> producer, String topic, int partition, byte[]... values)
            throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (byte[] value : values) {
            futures.add(producer.send(new ProducerRecord<>(topic, partition, null, value)));
        }
        producer.flush();
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) {
            offsets.add(future.get(Harness.WAIT_MS, TimeUnit.MILLISECONDS).offset());
        }
        return offsets;
    }

    /** Polls until it has `count` records. */
    static List<ConsumerRecord<byte[], byte[]>> take(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(2 * Harness.WAIT_MS);
        while (records.size() < count) {
            Harness.check(System.nanoTime() < deadline, records.size() + " of " + count + " records in time");
            consumer.poll(Duration.ofMillis(200)).forEach(records::add);
        }
        return records;
    }

    /** `count` records of one partition from an offset. */
    static List<ConsumerRecord<byte[], byte[]>> read(String topic, int partition, long offset, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Harness.unique("read"))) {
            TopicPartition place = new TopicPartition(topic, partition);
            consumer.assign(List.of(place));
            consumer.seek(place, offset);
            return take(consumer, count).subList(0, count);
        }
    }

    static void equalValues(List<ConsumerRecord<byte[], byte[]>> found, byte[][] wanted, String what) {
        Harness.equal(found.size(), wanted.length, what + ", their number");
        for (int n = 0; n < wanted.length; n++) {
            Harness.check(Arrays.equals(found.get(n).value(), wanted[n]), what + ": value " + n + " differs");
        }
    }
}
