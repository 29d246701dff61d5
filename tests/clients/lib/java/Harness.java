import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Predicate;
import java.util.stream.Collectors;

/**
 * What the suites written in Java share: cases, waiting for conditions, child processes, the control channel.
 *
 * <p>Cases run a few at a time, each with topics and groups of its own; exclusive ones (that restart the broker, or
 * measure time) run alone, after the others.
 */
final class Harness {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    /** "vltava" or "kafka": only for the few points where Apache Kafka itself is known to differ. */
    static final String BROKER = System.getenv().getOrDefault("BROKER", "vltava");
    /** The least session timeout that brokers allow by default: what a member's death costs. */
    static final int SESSION_MS = 6000;

    /** How many ordinary cases run at a time. */
    private static final int WIDTH = 3;
    /** A case that takes longer has failed, and the suite ends there. */
    private static final long CASE_TIMEOUT_MS = 120_000;
    /** How long a condition is awaited. */
    static final long WAIT_MS = 30_000;

    private static final List<Case> CASES = new ArrayList<>();
    private static final Map<String, Role> ROLES = new HashMap<>();
    private static final AtomicInteger NUMBERS = new AtomicInteger();

    private Harness() {}

    /** What a case does; any exception fails it. */
    interface Body {
        void run() throws Exception;
    }

    /** What a child process does. */
    interface Role {
        void run(String[] words) throws Exception;
    }

    private record Case(String name, Body body, boolean exclusive) {}

    /** A check that did not hold. */
    static final class Failure extends RuntimeException {
        Failure(String why) {
            super(why);
        }
    }

    static void add(String name, Body body) {
        CASES.add(new Case(name, body, false));
    }

    static void addExclusive(String name, Body body) {
        CASES.add(new Case(name, body, true));
    }

    static void role(String name, Role role) {
        ROLES.put(name, role);
    }

    static void check(boolean condition, String why) {
        if (!condition) {
            throw new Failure(why);
        }
    }

    static void equal(Object found, Object wanted, String what) {
        if (!Objects.equals(found, wanted)) {
            throw new Failure(what + ": found " + shorten(found) + ", wanted " + shorten(wanted));
        }
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 200 ? text : text.substring(0, 200) + "…";
    }

    /** Fails the case unless the body throws, at any depth, an error of that kind. */
    static void fails(Class<? extends Throwable> kind, Body body, String what) {
        try {
            body.run();
        } catch (Throwable error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                if (kind.isInstance(cause)) {
                    return;
                }
            }
            throw new Failure(what + " failed otherwise: " + error);
        }
        throw new Failure(what + " did not fail");
    }

    /** Asks until the answer is true. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MS);
        while (!condition.call()) {
            check(System.nanoTime() < deadline, what + ": not within " + WAIT_MS + " ms");
            Thread.sleep(50);
        }
    }

    /** A name that no other case uses. */
    static String unique(String prefix) {
        int random = ThreadLocalRandom.current().nextInt();
        return String.format("%s-%d-%08x", prefix, NUMBERS.incrementAndGet(), random);
    }

    /** A value of that size that tells its number, the same for the same number. */
    static byte[] payload(int number, int size) {
        byte[] unit = String.format("%08d:%c žluť\0", number, 'a' + number % 26).getBytes(StandardCharsets.UTF_8);
        byte[] value = new byte[size];
        for (int n = 0; n < size; n++) {
            value[n] = unit[n % unit.length];
        }
        return value;
    }

    /** Ends the broker by the signal and returns once it accepts again, on the same data and port. */
    static void restart(String signal) throws Exception {
        URI uri = URI.create(System.getenv("CONTROL") + "/restart?signal=" + signal);
        HttpRequest request = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.noBody()).build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        equal(answer.statusCode(), 200, "restart: " + answer.body());
    }

    /** The command line of another JVM with this one's class path. */
    static List<String> java(String mainClass, String... words) {
        List<String> command = new ArrayList<>(List.of(
            System.getProperty("java.home") + "/bin/java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", "-cp", System.getProperty("java.class.path"), mainClass));
        command.addAll(Arrays.asList(words));
        return command;
    }

    /** Another process: what can be killed as a whole, and whose lines are read as they come. */
    static final class Child implements AutoCloseable {
        private final Process process;
        private final BlockingQueue<String> lines = new LinkedBlockingQueue<>();
        private final List<String> seen = new ArrayList<>();
        private static final String END = "\0end";

        /** Starts this suite in one of its roles. */
        static Child role(String name, String... words) throws IOException {
            List<String> command = java("Suite", name);
            command.addAll(Arrays.asList(words));
            return new Child(command);
        }

        Child(List<String> command) throws IOException {
            process = new ProcessBuilder(command).redirectErrorStream(true).start();
            Thread pump = new Thread(this::pump);
            pump.setDaemon(true);
            pump.start();
        }

        private void pump() {
            try (BufferedReader reader = new BufferedReader(
                    new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                    lines.add(line);
                }
            } catch (IOException ignored) {
                // A killed child closes its pipe.
            }
            lines.add(END);
        }

        /** The first line from now on that is accepted. */
        String waitLine(String what, Predicate<String> accept) throws InterruptedException {
            long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MS);
            for (;;) {
                String line = lines.poll(Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
                List<String> last = seen.subList(Math.max(0, seen.size() - 5), seen.size());
                check(line != null, what + ": not within " + WAIT_MS + " ms; last lines " + last);
                check(!line.equals(END), what + ": the child ended; last lines " + last);
                if (accept.test(line)) {
                    return line;
                }
                seen.add(line);
            }
        }

        /** Waits until the child owns that many partitions; returns them. */
        Set<Integer> owns(int count, String what) throws InterruptedException {
            return partitionsOf(waitLine(what, l -> l.startsWith("assigned ") && partitionsOf(l).size() == count));
        }

        /** Writes to the child's standard input. */
        void tell(String text) throws IOException {
            process.getOutputStream().write(text.getBytes(StandardCharsets.UTF_8));
            process.getOutputStream().flush();
        }

        /** Asks the child to leave by SIGTERM and waits for its end. */
        void end() throws InterruptedException {
            process.destroy();
            check(process.waitFor(WAIT_MS, TimeUnit.MILLISECONDS), "the child did not end after SIGTERM");
        }

        /** kill -9. */
        @Override
        public void close() throws InterruptedException {
            process.destroyForcibly().waitFor();
        }
    }

    /** The line by which a member child tells what it owns. */
    static void tellAssigned(Collection<Integer> partitions) {
        System.out.println("assigned " + new TreeSet<>(partitions).stream().map(String::valueOf)
            .collect(Collectors.joining(",")));
    }

    private static Set<Integer> partitionsOf(String line) {
        return Arrays.stream(line.substring("assigned ".length()).split(",")).filter(word -> !word.isEmpty())
            .map(Integer::valueOf).collect(Collectors.toCollection(TreeSet::new));
    }

    private static void run(Case entry) {
        Thread watchdog = new Thread(() -> giveUp(entry));
        watchdog.setDaemon(true);
        watchdog.start();
        try {
            entry.body().run();
            say("ok " + entry.name());
        } catch (Throwable error) {
            if (!(error instanceof Failure)) {
                error.printStackTrace(System.out);
            }
            String why = error instanceof Failure ? error.getMessage() : error.toString();
            say("not ok " + entry.name() + ": " + why.replaceAll("\\s+", " "));
        } finally {
            watchdog.interrupt();
        }
    }

    private static void giveUp(Case entry) {
        try {
            Thread.sleep(CASE_TIMEOUT_MS);
        } catch (InterruptedException done) {
            return;
        }
        say("not ok " + entry.name() + ": took more than " + CASE_TIMEOUT_MS + " ms");
        Thread.getAllStackTraces().forEach((thread, stack) -> say(thread.getName() + " " + Arrays.toString(stack)));
        Runtime.getRuntime().halt(1);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
    }

    /** Runs the role named on the command line, or else all cases ({@code CASES=a,b} picks some). */
    static void main(String[] words) throws Exception {
        if (words.length > 0) {
            ROLES.get(words[0]).run(Arrays.copyOfRange(words, 1, words.length));
            return;
        }
        Set<String> picked = Arrays.stream(System.getenv().getOrDefault("CASES", "").split(","))
            .filter(name -> !name.isEmpty()).collect(Collectors.toSet());
        List<Case> wanted = CASES.stream().filter(c -> picked.isEmpty() || picked.contains(c.name())).toList();
        ExecutorService pool = Executors.newFixedThreadPool(WIDTH);
        wanted.stream().filter(c -> !c.exclusive()).forEach(c -> pool.submit(() -> run(c)));
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.HOURS);
        wanted.stream().filter(Case::exclusive).forEach(Harness::run);
        say("end " + wanted.size());
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }
}
