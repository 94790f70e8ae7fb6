"""The part of a checkpoint's vocabulary that a file of it gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernels.config import EncoderConfig
from ..kernels.model_file import VOCABULARY
from ..kernels.native import library_problem
from ..kernels.native_tokenizer import NativeTokenizer
from ..notices import Progress
from ..tokenizer import Tokenizer
from .checkpoint.checkpoint import Checkpoint
from .needs import CHOOSING
from .tokenizer.restrict import restrict_model
from .vocabulary.keep import Keep, Kept, Vocabulary, choose


@dataclass(frozen=True)
class Part:
    """All of a vocabulary, or a part of it.

    Attributes:
        config: of the model with the rows of these pieces.
        model, table: the tokenizer of these pieces.
        kept: which they are; None for all.
    """

    config: EncoderConfig
    model: bytes
    table: npt.NDArray[np.uint8]
    kept: Kept | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What a model file says of it."""
        return {} if self.kept is None else {VOCABULARY: str(self.kept.of)}


def part_of(source: Checkpoint, table: npt.NDArray[np.uint8], keep: Keep | None, progress: Progress) -> Part:
    """The part of a checkpoint's vocabulary, whose table this is, that is to be kept; raises InputError as `choose`."""
    if keep is None:
        return Part(source.config, source.tokenizer_model, table)
    progress.begin(CHOOSING)
    ends = source.config.bos_id, source.config.eos_id
    engine = library_problem() is None
    tokenizer = NativeTokenizer(table, *ends) if engine else Tokenizer(source.tokenizer_model, *ends)
    kept = choose(Vocabulary(table, tokenizer, source.config, (*source.prompts.values(),)), keep)
    return Part(kept.config(source.config), restrict_model(source.tokenizer_model, kept.ids), kept.table, kept)
