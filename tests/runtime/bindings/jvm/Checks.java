import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.function.Supplier;
import org.embgemma.EmbeddingModel;
import org.embgemma.EmbgemmaException;

/** What test_jvm.py runs: the first argument names a check, the others are its files. */
public final class Checks {
    private static final int OFFSET = 68; // of a model file in a package: a multiple of 4 and of nothing more

    public static void main(String[] arguments) throws Exception {
        String model = arguments[1];
        switch (arguments[0]) {
            case "vectors" -> vectors(model, Path.of(arguments[2]), Path.of(arguments[3]), Path.of(arguments[4]));
            case "threads" -> threads(model);
            case "close" -> close(model);
            case "cancel" -> cancel(model);
            case "calls" -> calls(model, Integer.parseInt(arguments[2]));
            case "errors" -> errors(model, Path.of(arguments[2]));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.out.println("passed");
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    // ---- vectors -----------------------------------------------------------------------------------------------------

    /** Embeds the records that golden.c reads, with the model opened in every way, and by every call. */
    private static void vectors(String file, Path inPackage, Path texts, Path out) throws Exception {
        List<String> names = new ArrayList<>(), all = new ArrayList<>();
        try (DataInputStream stream = new DataInputStream(Files.newInputStream(texts))) {
            for (String[] lengths; (lengths = line(stream).split(" ")).length == 2; ) {
                String name = read(stream, Integer.parseInt(lengths[0]) + 1);
                names.add(name.substring(0, name.length() - 1));
                all.add(read(stream, Integer.parseInt(lengths[1])));
            }
        }
        byte[] first = null;
        for (String way : List.of("path", "buffer", "descriptor", "async")) {
            try (EmbeddingModel model = open(way, file, inPackage)) {
                int dim = model.dimensions();
                ByteBuffer bytes = ByteBuffer.allocate(4 * dim * all.size()).order(ByteOrder.LITTLE_ENDIAN);
                for (int i = 0; i < all.size(); i++) {
                    List<String> text = all.subList(i, i + 1);
                    float[][] vectors = way.equals("async") ? model.embedAsync(text, names.get(i), dim).join()
                            : model.embed(text, names.get(i), dim);
                    bytes.asFloatBuffer().put(vectors[0]);
                    bytes.position(bytes.position() + 4 * dim);
                }
                if (first == null) {
                    first = bytes.array();
                    sizes(model, all);
                }
                check(Arrays.equals(first, bytes.array()), "other vectors of a model opened by " + way);
            }
        }
        Files.write(out, first);
    }

    /** A batch gives what each text alone gives; a smaller size is the beginning of the vector, made longer. */
    private static void sizes(EmbeddingModel model, List<String> texts) {
        float[][] documents = model.embedDocuments(texts);
        check(Arrays.deepEquals(documents, model.embedDocumentsAsync(texts).join()), "batch and single texts differ");
        for (int dim : new int[] {1, model.dimensions() / 2, model.dimensions()}) {
            float[] whole = model.embedQuery(texts.get(0)), part = model.embedQuery(texts.get(0), dim);
            double length = 0, dot = 0;
            for (int i = 0; i < dim; i++) {
                length += (double) whole[i] * whole[i];
                dot += (double) whole[i] * part[i];
            }
            check(part.length == dim && Math.abs(dot - Math.sqrt(length)) < 1e-5, "size " + dim);
        }
        check(Arrays.equals(model.embedQuery("é 😀"), model.embedQueryAsync("é 😀").join()), "a query later");
        check(model.embedDocuments(List.of()).length == 0, "no text");
    }

    private static EmbeddingModel open(String way, String file, Path inPackage) throws Exception {
        if (way.equals("path") || way.equals("async")) {
            return EmbeddingModel.open(file);
        }
        long bytes = Files.size(Path.of(file));
        if (way.equals("buffer")) {
            try (FileChannel channel = FileChannel.open(inPackage)) {
                ByteBuffer all = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
                all.position(OFFSET).limit((int) (OFFSET + bytes));
                return EmbeddingModel.open(all, 2);
            }
        }
        try (RandomAccessFile opened = new RandomAccessFile(inPackage.toFile(), "r")) { // as an asset of Android is
            Field number = java.io.FileDescriptor.class.getDeclaredField("fd");
            number.setAccessible(true);
            return EmbeddingModel.open(number.getInt(opened.getFD()), OFFSET, bytes, 1);
        }
    }

    private static String line(DataInputStream stream) throws IOException {
        StringBuilder line = new StringBuilder();
        for (int each; (each = stream.read()) != '\n' && each >= 0; ) {
            line.append((char) each);
        }
        return line.toString();
    }

    private static String read(DataInputStream stream, int bytes) throws IOException {
        byte[] read = new byte[bytes];
        stream.readFully(read);
        return new String(read, StandardCharsets.UTF_8);
    }

    // ---- many threads ------------------------------------------------------------------------------------------------

    private static List<Thread> start(int count, Runnable body, List<Throwable> thrown) {
        List<Thread> started = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            Thread thread = new Thread(body);
            thread.setUncaughtExceptionHandler((which, error) -> thrown.add(error));
            thread.start();
            started.add(thread);
        }
        return started;
    }

    private static void threads(String file) throws InterruptedException {
        List<Throwable> thrown = Collections.synchronizedList(new ArrayList<>());
        try (EmbeddingModel model = EmbeddingModel.open(file, 2)) {
            List<String> texts = List.of("on the hill", "by the sea", "", "a longer text, with more words in it");
            float[][] expected = model.embedDocuments(texts);
            for (Thread thread : start(8, () -> {
                for (int i = 0; i < 50; i++) {
                    String text = texts.get(i % 4);
                    check(Arrays.equals(model.embedDocuments(List.of(text))[0], expected[i % 4]), text);
                }
            }, thrown)) {
                thread.join();
            }
        }
        check(thrown.isEmpty(), thrown.toString());
    }

    /** Whoever runs while the model is closed gets right vectors, whoever comes later an exception. */
    private static void close(String file) throws InterruptedException {
        float[] expected;
        String text = "word ".repeat(200);
        try (EmbeddingModel model = EmbeddingModel.open(file)) {
            expected = model.embedQuery(text);
        }
        List<Throwable> thrown = Collections.synchronizedList(new ArrayList<>());
        for (int round = 0; round < 20; round++) {
            EmbeddingModel model = EmbeddingModel.open(file, 2);
            List<CompletableFuture<float[]>> later = new ArrayList<>();
            List<Thread> threads = start(4, () -> {
                try {
                    while (true) {
                        check(Arrays.equals(model.embedQuery(text), expected), "a wrong vector");
                    }
                } catch (IllegalStateException e) {
                    check(e.getMessage().contains("closed"), e.getMessage());
                }
            }, thrown);
            for (int i = 0; i < 20; i++) {
                later.add(model.embedQueryAsync(text));
            }
            Thread.sleep(round);
            model.close();
            model.close();
            later.add(model.embedQueryAsync(text));
            for (Thread thread : threads) {
                thread.join();
            }
            check(later.get(20).isCompletedExceptionally(), "a closed model took work");
            for (CompletableFuture<float[]> each : later) {
                try {
                    check(Arrays.equals(each.join(), expected), "a wrong vector");
                } catch (CompletionException e) {
                    check(e.getCause() instanceof IllegalStateException, e.toString());
                }
            }
            check(model.dimensions() == expected.length, "facts of a closed model");
        }
        check(thrown.isEmpty(), thrown.toString());
    }

    /** Work that is cancelled ends before its next text; what was asked for after it is done. */
    private static void cancel(String file) {
        try (EmbeddingModel model = EmbeddingModel.open(file)) {
            List<String> hours = Collections.nCopies(10_000_000, "the same text again");
            CompletableFuture<float[][]> first = model.embedDocumentsAsync(hours), second =
                    model.embedAsync(hours, null, 1);
            CompletableFuture<float[]> last = model.embedQueryAsync("a query");
            check(!first.isDone() && !last.isDone(), "the caller waited");
            check(second.cancel(true) && first.cancel(true), "cannot cancel");
            check(last.join().length == model.dimensions(), "the last");
            try {
                first.join();
                check(false, "cancelled work has a result");
            } catch (CancellationException e) {
                check(first.isCancelled(), "cancelled");
            }
        }
    }

    /** Many calls leave nothing behind: the process does not grow, while the heap is of one size. */
    private static void calls(String file, int count) throws IOException {
        try (EmbeddingModel model = EmbeddingModel.open(file, 2)) {
            float[] expected = model.embedQuery("a text");
            long before = 0;
            for (int i = 0; i < count; i++) {
                check(Arrays.equals(model.embedQuery("a text"), expected), "call " + i);
                model.fingerprint("query", 1 + i % model.dimensions());
                if (i % 10 == 0) {
                    EmbeddingModel.open(file, 1).close();
                }
                before = i == count / 2 ? resident() : before;
            }
            long grown = resident() - before;
            check(grown < 4096, grown + " KiB more"); // what half of the calls leak, a vector each at least, is more
        }
    }

    private static long resident() throws IOException {
        System.gc();
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
        }
        throw new AssertionError("no VmRSS");
    }

    // ---- errors --------------------------------------------------------------------------------------------------------

    private static void refused(Class<?> kind, String word, Supplier<?> call) {
        try {
            call.get();
        } catch (RuntimeException e) {
            check(kind.isInstance(e) && e.getMessage().contains(word), kind + " with " + word + ", not " + e);
            return;
        }
        throw new AssertionError("not refused: " + word);
    }

    private static void errors(String file, Path folder) throws IOException {
        Class<?> argument = IllegalArgumentException.class, other = EmbgemmaException.class;
        String broken = folder.resolve("brüchig 😀.safetensors").toString();
        byte[] all = Files.readAllBytes(Path.of(file));
        Files.write(Path.of(broken), Arrays.copyOf(all, all.length / 2));
        refused(other, "cannot open", () -> EmbeddingModel.open(file + ".none"));
        refused(other, "brüchig 😀", () -> EmbeddingModel.open(broken));
        refused(other, "not a file", () -> EmbeddingModel.open(folder.toString()));
        refused(argument, "null", () -> EmbeddingModel.open((String) null));
        refused(argument, "zero", () -> EmbeddingModel.open(file + "\0x"));
        refused(argument, "threads -1", () -> EmbeddingModel.open(file, -1));
        refused(argument, "threads", () -> EmbeddingModel.open(file, 1_000_000));
        refused(argument, "direct", () -> EmbeddingModel.open(ByteBuffer.wrap(all), 0));
        refused(argument, "direct", () -> EmbeddingModel.open((ByteBuffer) null, 0));
        ByteBuffer copy = ByteBuffer.allocateDirect(all.length + 1).put(0, (byte) 0);
        copy.position(1).put(all).position(1);
        refused(argument, "aligned", () -> EmbeddingModel.open(copy, 0));
        refused(other, "cut", () -> EmbeddingModel.open(ByteBuffer.allocateDirect(0), 0));
        refused(other, "descriptor", () -> EmbeddingModel.open(-1, 0, 0, 0));
        refused(argument, "multiple of 4", () -> EmbeddingModel.open(0, 2, 0, 0));
        refused(argument, "offset -4", () -> EmbeddingModel.open(0, -4, 0, 0));
        EmbeddingModel model = EmbeddingModel.open(file);
        refused(argument, "size 0", () -> model.embedQuery("text", 0));
        refused(argument, "size 10000", () -> model.embedDocuments(List.of(), 10_000));
        refused(argument, "nothing is not a prompt", () -> model.embed(List.of("text"), "nothing", 1));
        refused(argument, "zero", () -> model.embed(List.of("text"), "query\0", 1));
        refused(argument, "text 1 is null", () -> model.embedDocuments(Arrays.asList("text", null)));
        refused(argument, "text 1 has half", () -> model.embedDocuments(List.of("text", "\uD83D alone")));
        refused(argument, "size 0", () -> model.fingerprint(null, 0));
        refused(argument, "list of texts is null", () -> model.embedDocuments(null));
        refused(argument, "list of texts is null", () -> model.embedDocumentsAsync(null));
        refused(CompletionException.class, "text 0 is null", () -> model.embedQueryAsync(null).join());
        refused(CompletionException.class, "text 1 is null",
                () -> model.embedDocumentsAsync(Arrays.asList("text", null)).join());
        model.close();
        refused(IllegalStateException.class, "closed", () -> model.embedQuery("text"));
        refused(IllegalStateException.class, "closed", () -> model.fingerprint(null, 1));
    }
}
