import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** Kafka's own command-line tools, each run as a process of its own, as an operator does. */
final class Tool {
    private static final long TIMEOUT_S = 60;

    private Tool() {}

    /** Runs a tool against the broker; returns what it printed, or fails the case if its status is not 0. */
    static String run(String mainClass, String... words) throws Exception {
        return runWithInput("", mainClass, words);
    }

    static String runWithInput(String input, String mainClass, String... words) throws Exception {
        Outcome outcome = execute(input, mainClass, words);
        Harness.equal(outcome.status(), 0, mainClass + " ended badly, saying: " + outcome.text());
        return outcome.text();
    }

    /** Runs a tool that must fail; returns what it printed. */
    static String fail(String mainClass, String... words) throws Exception {
        Outcome outcome = execute("", mainClass, words);
        Harness.check(outcome.status() != 0, mainClass + " should have failed");
        return outcome.text();
    }

    private record Outcome(int status, String text) {}

    private static Outcome execute(String input, String mainClass, String... words) throws Exception {
        Process process = new ProcessBuilder(Harness.java(mainClass, words)).redirectErrorStream(true).start();
        CompletableFuture<byte[]> output = CompletableFuture.supplyAsync(() -> readAll(process.getInputStream()));
        try (OutputStream stdin = process.getOutputStream()) {
            stdin.write(input.getBytes(StandardCharsets.UTF_8));
        } catch (IOException ended) {
            // A tool that ends at once does not read its input; its status tells the rest.
        }
        try {
            byte[] bytes = output.get(TIMEOUT_S, TimeUnit.SECONDS);
            process.waitFor();
            return new Outcome(process.exitValue(), new String(bytes, StandardCharsets.UTF_8));
        } finally {
            process.destroyForcibly();
        }
    }

    private static byte[] readAll(InputStream stream) {
        try {
            return stream.readAllBytes();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Adds the words that most tools begin with. */
    static String[] atBroker(String... words) {
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", Harness.BOOTSTRAP));
        all.addAll(List.of(words));
        return all.toArray(String[]::new);
    }

    static void contains(String text, String wanted) {
        Harness.check(text.contains(wanted), "no \"" + wanted + "\" in: " + text.strip());
    }

    /** The broker's segment files that hold these bytes, whatever the folders are called. */
    static List<Path> segmentsHolding(String marker) throws IOException {
        byte[] wanted = marker.getBytes(StandardCharsets.UTF_8);
        try (Stream<Path> files = Files.walk(Path.of(System.getenv("DATA_DIR")))) {
            return files.filter(path -> path.getFileName().toString().matches("\\d{20}\\.log"))
                .filter(path -> holds(path, wanted)).toList();
        }
    }

    private static boolean holds(Path path, byte[] wanted) {
        try {
            String latin = new String(Files.readAllBytes(path), StandardCharsets.ISO_8859_1);
            return latin.contains(new String(wanted, StandardCharsets.ISO_8859_1));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** A file in the suite's scratch folder with that text. */
    static Path scratch(String name, String text) throws IOException {
        return Files.writeString(Path.of(System.getenv("SCRATCH")).resolve(name), text);
    }
}
