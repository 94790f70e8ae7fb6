package org.embgemma;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The functions of embgemma.h, by embgemma_jni.c. Text crosses as bytes of UTF-8, since JNI's own strings are a dialect
 * of it. Functions that can fail return an eg_status; names end with a 0.
 */
final class Native {
    private static final int ARGUMENT = 1, MEMORY = 3; // of eg_status

    static {
        System.loadLibrary("embgemma_jni");
    }

    private Native() {}

    static native int openPath(byte[] path, int threads, long[] handle);

    static native int openBuffer(ByteBuffer buffer, int position, int bytes, int threads, long[] handle);

    static native int openDescriptor(int descriptor, long offset, long bytes, int threads, long[] handle);

    static native void free(long handle);

    /** Text i is texts[ends[i - 1]] … texts[ends[i] - 1]; out has dim numbers for each. */
    static native int embed(long handle, byte[] texts, int[] ends, byte[] promptName, int dim, float[] out);

    static native int dimensions(long handle);

    static native int maxTokens(long handle);

    static native int threads(long handle);

    static native byte[] instructionSet(long handle);

    /** Null past the last one. */
    static native byte[] promptName(long handle, int index);

    /** Receives at most 64 bytes. */
    static native int fingerprint(long handle, byte[] promptName, int dim, byte[] out);

    /** Of the last error on this thread. */
    private static native byte[] message();

    static void check(int status) {
        if (status != 0) {
            String message = text(message());
            if (status == ARGUMENT) {
                throw new IllegalArgumentException(message);
            }
            if (status == MEMORY) {
                throw new OutOfMemoryError(message);
            }
            throw new EmbgemmaException(message);
        }
    }

    static String text(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }

    /** Refuses halves of surrogate pairs, which String.getBytes() would replace. */
    static byte[] utf8(String what, String text) {
        if (text == null) {
            throw new IllegalArgumentException(what + " is null; expected text");
        }
        try {
            ByteBuffer bytes = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
            return Arrays.copyOf(bytes.array(), bytes.limit());
        } catch (CharacterCodingException e) {
            throw new IllegalArgumentException(what + " has half of a surrogate pair; expected whole characters", e);
        }
    }

    /** A name for C, which ends with a 0 there. */
    static byte[] name(String what, String name) {
        byte[] bytes = utf8(what, name);
        for (byte each : bytes) {
            if (each == 0) {
                throw new IllegalArgumentException(what + " has a zero character in it");
            }
        }
        return Arrays.copyOf(bytes, bytes.length + 1);
    }
}
