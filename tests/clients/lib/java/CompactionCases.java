import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;

/** What compaction leaves of a log, and that no consumer stalls in the gaps. */
final class CompactionCases {
    /** Small segments that are compacted at once. Tombstones may go soon after. */
    private static final Map<String, String> CONFIGS = Map.of(
        "cleanup.policy", "compact", "segment.bytes", "1048576", "segment.ms", "10", "min.cleanable.dirty.ratio", "0.01",
        "max.compaction.lag.ms", "100", "delete.retention.ms", "100");
    /** Beyond {@code segment.ms}. */
    private static final long ROLL_NS = 20_000_000;

    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final List<String> KEYS = List.of("key-0", "key-1", "key-2", "key-3", "key-4");
    /** The last batch ends with tombstones for these. */
    private static final List<String> DELETED = KEYS.subList(3, 5);
    private static final Pair LAST = new Pair("last", "the record that ends the log");

    private CompactionCases() {}

    /** A key and its value; null is a tombstone. */
    private record Pair(String key, String value) {}

    /** A record that was read. */
    private record Found(long offset, String key, String value) {}

    static void addAll() {
        Harness.add("compacted-topic", CompactionCases::compactedTopic);
        Harness.add("no-key-for-a-compacted-topic", CompactionCases::noKey);
    }

    /** A value that tells where it comes from and is worth compressing. */
    private static Pair pair(String key, String round) {
        return new Pair(key, key + " of " + round + " " + "abcdefghij".repeat(20));
    }

    /** A codec's batch: a key of its own, so that it is cut down and built again in its codec, and the shared keys. */
    private static List<Pair> batch(String codec) {
        boolean deletes = codec.equals(CODECS.get(CODECS.size() - 1));
        List<Pair> pairs = new ArrayList<>(List.of(pair("own-" + codec, codec)));
        for (String key : KEYS) {
            pairs.add(deletes && DELETED.contains(key) ? new Pair(key, null) : pair(key, codec));
        }
        return pairs;
    }

    /** Produces in one batch, the producer's settings allowing; returns the offsets. */
    private static List<Long> send(KafkaProducer<byte[], byte[]> producer, String topic, List<Pair> pairs)
            throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (Pair pair : pairs) {
            futures.add(producer.send(new ProducerRecord<>(topic, 0, bytes(pair.key()), bytes(pair.value()))));
        }
        producer.flush();
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) {
            offsets.add(future.get(Harness.WAIT_MS, TimeUnit.MILLISECONDS).offset());
        }
        return offsets;
    }

    /** The same by a producer of its own. */
    private static List<Long> sendOnce(String topic, String codec, List<Pair> pairs) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = Clients.producer("compression.type", codec, "linger.ms", 50)) {
            return send(producer, topic, pairs);
        }
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** Polls until the position is the end. */
    private static List<Found> readThrough(KafkaConsumer<byte[], byte[]> consumer, TopicPartition place)
            throws Exception {
        long end = consumer.endOffsets(List.of(place)).get(place);
        List<Found> records = new ArrayList<>();
        Harness.until("a position at the end, " + end, () -> {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                records.add(new Found(record.offset(), text(record.key()), text(record.value())));
            }
            return consumer.assignment().contains(place) && consumer.position(place) >= end;
        });
        Harness.equal(consumer.position(place), end, "position");
        return records;
    }

    /** Reads from the beginning to the end, one batch a fetch, so that empty ones come alone. */
    private static List<Found> readAll(String topic) throws Exception {
        TopicPartition place = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> consumer =
                Clients.consumer(Harness.unique("read"), "max.partition.fetch.bytes", 1)) {
            consumer.assign(List.of(place));
            consumer.seekToBeginning(List.of(place));
            return readThrough(consumer, place);
        }
    }

    private static Map<String, String> lastValues(List<Pair> written) {
        Map<String, String> last = new HashMap<>();
        written.forEach(pair -> last.put(pair.key(), pair.value()));
        return last;
    }

    /** Whether compaction has come to its end: no key is there twice. */
    private static boolean settled(List<Found> records) {
        return records.stream().map(Found::key).distinct().count() == records.size();
    }

    /** Fails the case unless these are the last values. A tombstone may be gone. */
    private static void judge(List<Found> records, Map<String, String> wanted) {
        Map<String, String> found = new HashMap<>();
        long before = -1;
        for (Found record : records) {
            Harness.check(record.offset() > before, "offset " + record.offset() + " after " + before);
            before = record.offset();
            found.put(record.key(), record.value());
        }
        wanted.forEach((key, value) -> Harness.equal(found.remove(key), value, "the last value of " + key));
        Harness.equal(found, Map.of(), "keys that nobody wrote");
    }

    private static void compactedTopic() throws Exception {
        String topic = Clients.create("compacted", 1, CONFIGS);
        List<Pair> written = new ArrayList<>();
        KEYS.forEach(key -> written.add(pair(key, "first")));
        // Idempotent. Of its first batch an empty one stays, since it is the last of a producer that may go on.
        try (KafkaProducer<byte[], byte[]> lasting =
                Clients.producer("enable.idempotence", true, "acks", "all", "linger.ms", 50)) {
            send(lasting, topic, written);
            for (String codec : CODECS) {
                sendOnce(topic, codec, batch(codec));
                written.addAll(batch(codec));
            }
            long begun = System.nanoTime();
            Harness.until("the clock to move", () -> System.nanoTime() - begun > ROLL_NS);
            long last = written.size();
            Harness.equal(sendOnce(topic, "none", List.of(LAST)), List.of(last), "offset of the last record");
            written.add(LAST);
            Harness.until("compaction", () -> settled(readAll(topic)));
            List<Found> left = readAll(topic);
            Harness.check(left.size() < written.size(), left.size() + " of " + written.size() + " records are left");
            judge(left, lastValues(written));
            resumeInGap(topic, left);

            // The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
            for (Pair change : List.of(new Pair("key-0", "afterwards"), new Pair(LAST.key(), null))) {
                last++;
                Harness.equal(send(lasting, topic, List.of(change)), List.of(last), "offset after compaction");
                written.add(change);
            }
        }
        judge(readAll(topic), lastValues(written));
    }

    /** A group that committed where there is nothing any more. */
    private static void resumeInGap(String topic, List<Found> left) throws Exception {
        TopicPartition place = new TopicPartition(topic, 0);
        String group = Harness.unique("compacted");
        Harness.check(left.get(0).offset() > 2, "a gap at the beginning, not " + left.get(0).offset());
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.assign(List.of(place));
            consumer.commitSync(Map.of(place, new OffsetAndMetadata(2)));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(group)) {
            consumer.subscribe(List.of(topic));
            List<Found> rest = readThrough(consumer, place);
            // Tombstones may go between two reads.
            rest.removeIf(record -> record.value() == null);
            Harness.equal(rest, left.stream().filter(record -> record.value() != null).toList(), "records after the gap");
        }
    }

    private static void noKey() throws Exception {
        String topic = Clients.create("keyless", 1, CONFIGS);
        Harness.fails(InvalidRecordException.class,
            () -> Clients.send(topic, 0, Harness.payload(1, 10)), "a record without a key");
        Harness.equal(sendOnce(topic, "none", List.of(LAST)), List.of(0L), "offset of the one after");
    }
}
