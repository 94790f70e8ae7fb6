// Errors that say what was found and what to do.

/** See index.d.ts for the codes. */
export class EmbgemmaError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "EmbgemmaError";
    this.code = code;
  }
}

/** Whether the engine's memory can no longer be trusted. */
export const isTrap = (error) => error instanceof WebAssembly.RuntimeError;

/** What a message between Workers can carry, and back. */
export function toMessage(error) {
  if (isTrap(error)) {
    return { code: "system", message: `the engine failed: ${error.message}; load the model again` };
  }
  return { code: error instanceof EmbgemmaError ? error.code : "system", message: String(error.message ?? error) };
}

export function fromMessage({ code, message }) {
  return new EmbgemmaError(code, message);
}
