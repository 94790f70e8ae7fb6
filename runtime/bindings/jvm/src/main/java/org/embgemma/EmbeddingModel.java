package org.embgemma;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Function;

/**
 * A model file that `embgemma convert` made, open on this device: texts to vectors, offline. Vectors have length 1, so a
 * dot product is a cosine, and the same bits on every device and in every batch.
 *
 * <pre>{@code
 * try (EmbeddingModel model = EmbeddingModel.open("embeddinggemma-300m.int8.safetensors")) {
 *     float[] query = model.embedQuery("Which planet is red?");
 *     float[][] documents = model.embedDocuments(List.of("Venus is Earth's twin.", "Mars is red."));
 * }
 * }</pre>
 *
 * Any number of threads may share a model; their calls run one after another, each on the model's own threads. Wrong
 * arguments give IllegalArgumentException, a closed model IllegalStateException, all else {@link EmbgemmaException}.
 */
public final class EmbeddingModel implements AutoCloseable {
    private static final String QUERY = "query", DOCUMENT = "document";
    private static final int FINGERPRINT_BYTES = 64, IDLE_SECONDS = 10;

    private final long handle;
    private final ByteBuffer data; // must be kept while the model is open; null if it lies in a file
    private final int dimensions, maxTokens, threads;
    private final String instructionSet;
    private final List<String> promptNames;
    private final ThreadPoolExecutor worker; // of the asynchronous calls; its one thread ends when idle
    private final Object lock = new Object();
    private int running; // calls that use the handle
    private boolean closed; // the last running call then frees the handle

    private EmbeddingModel(long handle, ByteBuffer data) {
        this.handle = handle;
        this.data = data;
        dimensions = Native.dimensions(handle);
        maxTokens = Native.maxTokens(handle);
        threads = Native.threads(handle);
        instructionSet = Native.text(Native.instructionSet(handle));
        List<String> names = new ArrayList<>();
        for (byte[] name; (name = Native.promptName(handle, names.size())) != null; ) {
            names.add(Native.text(name));
        }
        promptNames = Collections.unmodifiableList(names);
        worker = new ThreadPoolExecutor(1, 1, IDLE_SECONDS, TimeUnit.SECONDS, new LinkedBlockingQueue<>(), body -> {
            Thread thread = new Thread(body, "embgemma");
            thread.setDaemon(true);
            return thread;
        });
        worker.allowCoreThreadTimeOut(true);
    }

    // ---- open and close ----------------------------------------------------------------------------------------

    /** Opens a file with as many threads as this device has fast cores. */
    public static EmbeddingModel open(String path) {
        return open(path, 0);
    }

    /** Opens a file; it is mapped, so replace it by a rename only. threads: 0 for the number of fast cores. */
    public static EmbeddingModel open(String path, int threads) {
        byte[] name = Native.name("the path", path);
        long[] handle = new long[1];
        Native.check(Native.openPath(name, checked(threads), handle));
        return new EmbeddingModel(handle[0], null);
    }

    /**
     * Opens a part of an open file, such as an asset of an app, which is mapped in place. The descriptor may be closed
     * afterwards.
     *
     * @param descriptor of the system, such as ParcelFileDescriptor.getFd()
     * @param offset where the model file begins, a multiple of 4
     * @param length its bytes; 0 for all up to the end
     */
    public static EmbeddingModel open(int descriptor, long offset, long length, int threads) {
        if (offset < 0 || length < 0) {
            throw new IllegalArgumentException("offset " + offset + ", length " + length + "; expected 0 or more");
        }
        long[] handle = new long[1];
        Native.check(Native.openDescriptor(descriptor, offset, length, checked(threads), handle));
        return new EmbeddingModel(handle[0], null);
    }

    /**
     * Opens the bytes of a direct buffer from its position to its limit, such as a MappedByteBuffer; they must stay as
     * they are while the model is open. A file takes less memory when it is opened by its path or descriptor.
     */
    public static EmbeddingModel open(ByteBuffer data, int threads) {
        if (data == null || !data.isDirect()) {
            throw new IllegalArgumentException("the buffer is not direct; expected one of FileChannel.map() or"
                    + " ByteBuffer.allocateDirect()");
        }
        long[] handle = new long[1];
        Native.check(Native.openBuffer(data, data.position(), data.remaining(), checked(threads), handle));
        return new EmbeddingModel(handle[0], data);
    }

    private static int checked(int threads) {
        if (threads < 0) {
            throw new IllegalArgumentException("threads " + threads + "; expected 1 or more, or 0 for a good number");
        }
        return threads;
    }

    /**
     * Returns at once: a call that runs ends as if the model were open, and the last one frees it. Texts of asynchronous
     * calls that have not begun fail with IllegalStateException.
     */
    @Override
    public void close() {
        boolean unused;
        synchronized (lock) {
            unused = !closed && running == 0;
            closed = true;
        }
        worker.shutdown();
        if (unused) {
            Native.free(handle);
        }
    }

    private static IllegalStateException closed() {
        return new IllegalStateException("this model is closed; open it again");
    }

    /** Calls with the handle, which stays open meanwhile. */
    private <T> T use(Function<Long, T> call) {
        synchronized (lock) {
            if (closed) {
                throw closed();
            }
            running++;
        }
        try {
            return call.apply(handle);
        } finally {
            boolean last;
            synchronized (lock) {
                running--;
                last = closed && running == 0;
            }
            if (last) {
                Native.free(handle);
            }
        }
    }

    // ---- facts ---------------------------------------------------------------------------------------------------

    /** The size of a full vector. */
    public int dimensions() {
        return dimensions;
    }

    /** Of a text with its prompt; longer texts are cut at their end. */
    public int maxTokens() {
        return maxTokens;
    }

    public int threads() {
        return threads;
    }

    /** What it runs on, such as "neondot". */
    public String instructionSet() {
        return instructionSet;
    }

    /** The prompts that the model was trained with. */
    public List<String> promptNames() {
        return promptNames;
    }

    /** Names the vectors of these arguments: see eg_model_fingerprint() in embgemma.h. */
    public String fingerprint(String promptName, int dim) {
        byte[] name = promptName != null ? Native.name("the prompt's name", promptName) : null;
        byte[] text = new byte[FINGERPRINT_BYTES];
        use(handle -> {
            Native.check(Native.fingerprint(handle, name, dim, text));
            return null;
        });
        return Native.text(text).trim();
    }

    // ---- texts to vectors ------------------------------------------------------------------------------------------

    /** The vector of a query. */
    public float[] embedQuery(String text) {
        return embedQuery(text, dimensions);
    }

    /** @param dim the size of the vector: for EmbeddingGemma 768, 512, 256 or 128 */
    public float[] embedQuery(String text, int dim) {
        return embed(Collections.singletonList(text), promptOr(QUERY), dim)[0];
    }

    /** The vectors of documents, all in one batch. */
    public float[][] embedDocuments(List<String> texts) {
        return embedDocuments(texts, dimensions);
    }

    /** @param dim see {@link #embedQuery(String, int)} */
    public float[][] embedDocuments(List<String> texts, int dim) {
        return embed(texts, promptOr(DOCUMENT), dim);
    }

    /** @param promptName one of {@link #promptNames()}; "" for none, null for the model's default */
    public float[][] embed(List<String> texts, String promptName, int dim) {
        if (dim < 1 || dim > dimensions) {
            throw new IllegalArgumentException("embedding size " + dim + ": expected 1 … " + dimensions);
        }
        byte[] name = promptName != null ? Native.name("the prompt's name", promptName) : null;
        List<byte[]> parts = new ArrayList<>();
        int[] ends = new int[checked(texts).size()];
        float[] flat;
        byte[] joined;
        try {
            flat = new float[Math.multiplyExact(ends.length, dim)];
            int end = 0;
            for (int i = 0; i < ends.length; i++) {
                parts.add(Native.utf8("text " + i, texts.get(i)));
                end = ends[i] = Math.addExact(end, parts.get(i).length);
            }
            joined = new byte[end];
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException(ends.length + " texts are too much for one call; split them", e);
        }
        for (int i = 0; i < ends.length; i++) {
            byte[] part = parts.get(i);
            System.arraycopy(part, 0, joined, ends[i] - part.length, part.length);
        }
        use(handle -> {
            Native.check(Native.embed(handle, joined, ends, name, dim, flat));
            return null;
        });
        float[][] vectors = new float[ends.length][];
        for (int i = 0; i < ends.length; i++) {
            vectors[i] = Arrays.copyOfRange(flat, i * dim, (i + 1) * dim);
        }
        return vectors;
    }

    private static List<String> checked(List<String> texts) {
        if (texts == null) {
            throw new IllegalArgumentException("the list of texts is null; expected one, which may be empty");
        }
        return texts;
    }

    /** The prompt of this name, or none if the model lacks it. */
    private String promptOr(String name) {
        return promptNames.contains(name) ? name : "";
    }

    // ---- without waiting ---------------------------------------------------------------------------------------------

    /** As {@link #embedQuery(String)}, on a thread of the model's own. */
    public CompletableFuture<float[]> embedQueryAsync(String text) {
        return later(stopped -> embedEach(Collections.singletonList(text), promptOr(QUERY), dimensions, stopped)[0]);
    }

    /** As {@link #embedDocuments(List)}; see {@link #embedAsync}. */
    public CompletableFuture<float[][]> embedDocumentsAsync(List<String> texts) {
        return embedAsync(texts, promptOr(DOCUMENT), dimensions);
    }

    /**
     * As {@link #embed}, on a thread of the model's own, text by text: cancel() on the future stops the work before the
     * next text. Many short texts take less time in a batch.
     */
    public CompletableFuture<float[][]> embedAsync(List<String> texts, String promptName, int dim) {
        List<String> own = new ArrayList<>(checked(texts));
        return later(stopped -> embedEach(own, promptName, dim, stopped));
    }

    private float[][] embedEach(List<String> texts, String promptName, int dim, BooleanSupplier stopped) {
        float[][] vectors = new float[texts.size()][];
        for (int i = 0; i < vectors.length; i++) {
            Native.utf8("text " + i, texts.get(i)); // refuses it by its number in the list, before any work
        }
        for (int i = 0; i < vectors.length; i++) {
            if (stopped.getAsBoolean()) {
                throw new CancellationException();
            }
            vectors[i] = embed(Collections.singletonList(texts.get(i)), promptName, dim)[0];
        }
        return vectors;
    }

    private <T> CompletableFuture<T> later(Function<BooleanSupplier, T> work) {
        CompletableFuture<T> future = new CompletableFuture<>();
        try {
            worker.execute(() -> {
                try {
                    future.complete(work.apply(future::isDone));
                } catch (Throwable e) {
                    future.completeExceptionally(e);
                }
            });
        } catch (RejectedExecutionException e) {
            future.completeExceptionally(closed());
        }
        return future;
    }
}
