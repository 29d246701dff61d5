import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * The Java member of the chaos test: {@code run} produces and consumes until told to end, {@code read} reads all back.
 *
 * <p>What it is given and what it writes stands in tests/clients/README.md.
 */
final class Member {
    static final String TOPIC = System.getenv("TOPIC");
    static final int PARTITIONS = number("PARTITIONS");
    /** Shorter than a broker is held: what was sent to it is sent to others before it goes on. */
    static final int REQUEST_TIMEOUT_MS = 4000;
    static final long COMMIT_EVERY_NS = TimeUnit.MILLISECONDS.toNanos(500);

    static OutputStream journal;

    private Member() {}

    public static void main(String[] arguments) throws Exception {
        journal = new FileOutputStream(System.getenv("JOURNAL"), true);
        if (arguments[0].equals("read")) {
            read();
        } else {
            run();
        }
        write("ended");
    }

    static int number(String name) {
        return Integer.parseInt(System.getenv(name));
    }

    /** A line that others read while more are written. */
    static synchronized void write(Object... words) {
        StringBuilder line = new StringBuilder().append(System.currentTimeMillis());
        for (Object word : words) {
            line.append(' ').append(String.valueOf(word).replace('\n', ' '));
        }
        try {
            journal.write(line.append('\n').toString().getBytes(StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Until the input ends; the first line of it ends the producer. */
    static void run() throws Exception {
        CountDownLatch flush = new CountDownLatch(1);
        CountDownLatch end = new CountDownLatch(1);
        List<Thread> threads = List.of(
            start(() -> produce(flush)), start(() -> new Consumer("first").run(end)),
            start(() -> new Consumer("second").run(end)));
        for (int read = System.in.read(); read != '\n' && read >= 0; ) {
            read = System.in.read();
        }
        flush.countDown();
        while (System.in.read() >= 0) {
            // Nothing more is said.
        }
        end.countDown();
        for (Thread thread : threads) {
            thread.join();
        }
    }

    interface Work {
        void run() throws Exception;
    }

    /** One that fails ends all, and is told by the exit status. */
    static Thread start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable error) {
                error.printStackTrace();
                write("failed", error);
                Runtime.getRuntime().halt(1);
            }
        });
        thread.start();
        return thread;
    }

    /** Numbered records, round and round the partitions, until the end; then waits for what is under way. */
    static void produce(CountDownLatch ends) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", System.getenv("BOOTSTRAP"), "enable.idempotence", true, "acks", "all",
            "linger.ms", 5, "request.timeout.ms", REQUEST_TIMEOUT_MS, "delivery.timeout.ms", 600_000,
            "max.block.ms", 600_000);
        long number = 0;
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            long step = TimeUnit.SECONDS.toNanos(1) / number("RATE");
            long due = System.nanoTime();
            do {
                int partition = (int) (number % PARTITIONS);
                long sequence = number / PARTITIONS;
                String value = "java:" + partition + ":" + sequence;
                producer.send(new ProducerRecord<>(TOPIC, partition, null, value), (placed, error) -> {
                    if (error == null) {
                        write("acked", partition, sequence, placed.hasOffset() ? placed.offset() : -1);
                    } else {
                        write("refused", partition, sequence, error);
                    }
                });
                number++;
                // What was missed while there was no room is not made up for.
                due = Math.max(due + step, System.nanoTime() - TimeUnit.MILLISECONDS.toNanos(100));
            } while (!ends.await(due - System.nanoTime(), TimeUnit.NANOSECONDS));
            Thread flusher = start(producer::flush);
            flusher.join(TimeUnit.SECONDS.toMillis(number("FLUSH_S")));
            write("flushed", number);
            producer.close(Duration.ZERO);
        }
    }

    /** What every consumer is given. */
    static Map<String, Object> consumer() {
        return new HashMap<>(Map.of(
            "bootstrap.servers", System.getenv("BOOTSTRAP"), "group.id", System.getenv("GROUP"),
            "request.timeout.ms", REQUEST_TIMEOUT_MS, "auto.offset.reset", "earliest", "enable.auto.commit", false));
    }

    /** One consumer of the group; commits what it has seen. */
    static final class Consumer implements ConsumerRebalanceListener {
        private final String name;
        private final Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
        private final KafkaConsumer<String, String> client;

        Consumer(String name) {
            this.name = name;
            Map<String, Object> config = consumer();
            config.put("session.timeout.ms", number("SESSION_MS"));
            config.put("heartbeat.interval.ms", 500);
            config.put("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
            client = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        }

        void run(CountDownLatch ends) {
            client.subscribe(List.of(TOPIC), this);
            long due = System.nanoTime() + COMMIT_EVERY_NS;
            while (ends.getCount() > 0) {
                for (ConsumerRecord<String, String> record : client.poll(Duration.ofMillis(100))) {
                    write("saw", name, record.partition(), record.offset(), record.value());
                    TopicPartition place = new TopicPartition(TOPIC, record.partition());
                    positions.put(place, new OffsetAndMetadata(record.offset() + 1));
                }
                if (System.nanoTime() >= due) {
                    commit();
                    due = System.nanoTime() + COMMIT_EVERY_NS;
                }
            }
            commit();
            client.close();
        }

        private void commit() {
            if (positions.isEmpty()) {
                return;
            }
            try {
                client.commitSync(positions);
            } catch (CommitFailedException | RebalanceInProgressException | RetriableException error) {
                write("note", name + ": commit:", error);
                return;
            }
            positions.forEach((place, put) -> write("committed", name, place.partition(), put.offset()));
            positions.clear();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            commit();
            positions.keySet().removeAll(partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            positions.keySet().removeAll(partitions);
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
    }

    /** Every record of the topic up to its present end. */
    static void read() {
        try (var client = new KafkaConsumer<>(consumer(), new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> places =
                IntStream.range(0, PARTITIONS).mapToObj(partition -> new TopicPartition(TOPIC, partition)).toList();
            Map<TopicPartition, Long> ends = client.endOffsets(places);
            client.assign(places);
            client.seekToBeginning(places);
            Set<TopicPartition> left = new HashSet<>(places);
            while (!left.isEmpty()) {
                for (ConsumerRecord<String, String> record : client.poll(Duration.ofSeconds(1))) {
                    write("found", record.partition(), record.offset(), record.value());
                }
                left.removeIf(place -> client.position(place) >= ends.get(place));
            }
            ends.forEach((place, end) -> write("end", place.partition(), end));
        }
    }
}
