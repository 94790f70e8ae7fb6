package org.embgemma;

/** A model file cannot be used, or the system refuses something. The message says what was found and how to fix it. */
public final class EmbgemmaException extends RuntimeException {
    private static final long serialVersionUID = 1;

    EmbgemmaException(String message) {
        super(message);
    }
}
