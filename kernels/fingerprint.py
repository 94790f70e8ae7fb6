"""Names what made a vector: FORMAT.md, "Fingerprint". Twin of model/fingerprint.c."""

from __future__ import annotations

from collections.abc import Iterable

# Grows when this release gives vectors of a file that differ from those of an earlier one by more than rounding.
VECTORS_VERSION = 1

_MODEL_DIGITS, _TEXT_DIGITS = 32, 16  # hexadecimal: of 128 and of 64 bits


def model_digest(lines: Iterable[str]) -> str:
    """The digest of all that makes the vectors of token ids, and the ids of a text, stated by these lines."""
    return _digest(f"embgemma vectors {VECTORS_VERSION}", *lines)[:_MODEL_DIGITS]


def fingerprint(model: str, dim: int, max_tokens: int, prompt: str) -> str:
    """The fingerprint of vectors of a size, made of texts of at most max_tokens, by the model with this digest."""
    return f"{model}-{dim}-{_digest(str(max_tokens), prompt)[:_TEXT_DIGITS]}"


def _digest(*lines: str) -> str:
    import hashlib  # here, as few processes need it: it loads OpenSSL

    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
