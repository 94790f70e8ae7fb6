"""Makes embgemma-tiny, the model in the box, from nothing: runtime/models/README.md says of what, and what came of it.

    python -m embgemma.export.tiny.make FOLDER [--parts N]

Each stage keeps its result in FOLDER and is not run again; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..convert import convert
from .corpus import write_corpus
from .teacher import embed_corpus
from .train import Trainer


def main() -> None:
    """Runs all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", type=int, default=11, help="of the corpus, 20,000 texts each")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    write_corpus(options.folder)
    embed_corpus(options.folder, options.parts)
    Trainer(options.folder).train()
    convert(options.folder / "checkpoint", options.folder / "embgemma-tiny.safetensors", "balanced", force=True)


if __name__ == "__main__":
    main()
