import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;

/**
 * Kafka's own codec as a process: one command a line on standard input, one answer a line on standard output.
 *
 * `versions NAME` answers `MIN MAX`; `decode NAME VERSION BYTES` answers the message written again, a tab, and
 * its fields as JSON. What goes wrong is answered as `error: …`.
 */
final class CodecPeer {
    private static final List<String> CLASS_NAMES = List.of(
        "org.apache.kafka.common.message.%sData",
        "org.apache.kafka.common.message.%s",
        "org.apache.kafka.coordinator.group.generated.%s",
        "org.apache.kafka.coordinator.transaction.generated.%s");

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            output.println(answer(line));
        }
    }

    private static String answer(String line) {
        String[] words = line.split(" ", -1);
        try {
            return switch (words[0]) {
                case "versions" -> versions(words[1]);
                case "decode" -> decode(words[1], Short.parseShort(words[2]), HexFormat.of().parseHex(words[3]));
                default -> "error: unknown command";
            };
        } catch (InvocationTargetException error) {
            return "error: " + oneLine(error.getCause());
        } catch (Exception error) {
            return "error: " + oneLine(error);
        }
    }

    private static String oneLine(Throwable error) {
        return error.toString().replace('\n', ' ');
    }

    private static String versions(String name) throws ReflectiveOperationException {
        Message message = newMessage(name);
        return message.lowestSupportedVersion() + " " + message.highestSupportedVersion();
    }

    private static String decode(String name, short version, byte[] bytes) throws ReflectiveOperationException {
        Message message = newMessage(name);
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        message.read(new ByteBufferAccessor(buffer), version);
        if (buffer.hasRemaining()) {
            return "error: " + buffer.remaining() + " bytes left";
        }
        ByteBuffer written = MessageUtil.toByteBufferAccessor(message, version).buffer();
        byte[] again = MessageUtil.byteBufferToArray(written);
        Class<?> converter = Class.forName(message.getClass().getName() + "JsonConverter");
        Object fields = converter
            .getMethod("write", message.getClass(), short.class, boolean.class)
            .invoke(null, message, version, false);
        return HexFormat.of().formatHex(again) + "\t" + (JsonNode) fields;
    }

    private static Message newMessage(String name) throws ReflectiveOperationException {
        for (String pattern : CLASS_NAMES) {
            try {
                Class<?> found = Class.forName(String.format(pattern, name));
                return (Message) found.getDeclaredConstructor().newInstance();
            } catch (ClassNotFoundException absent) {
                continue;
            }
        }
        throw new ClassNotFoundException(name);
    }
}
