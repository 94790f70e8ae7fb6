"""The errors that embgemma raises on purpose; each message says what was found, what was expected and the fix."""


class EmbgemmaError(Exception):
    """Base class: catch this to catch every error that embgemma raises on purpose."""


class ModelFileError(EmbgemmaError):
    """A model file is cut, corrupt, of another version, or contradicts its own config."""


class CheckpointError(EmbgemmaError):
    """A training checkpoint is incomplete, has wrong shapes or values, or is of another architecture."""


class BackendError(EmbgemmaError):
    """A backend or instruction set was asked for that this install or this CPU does not have."""


class InputError(EmbgemmaError, ValueError):
    """Arguments or texts that cannot be encoded."""
