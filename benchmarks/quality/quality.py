"""The cost of quantisation: model files and other runtimes' formats in all languages and on evaluation sets.

Texts in some 460 languages come with the source. EMBGEMMA_GOLDEN names a folder of float32 embeddings, to which vectors
are compared, and EMBGEMMA_EVALDATA a folder of evaluation sets, which are scored as MTEB does, at every Matryoshka
size. These two only measure: nothing in this project is tuned on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...kernels.errors import InputError
from ...kernels.model_file import SCHEMES, read_model_file
from ...model import load
from ..compare.compare import prepared
from ..compare.exactness import GOLDEN_VARIABLE, read_golden
from ..harness.cache import checkpoint_folder
from ..harness.command import progress
from ..harness.machine import read_environment
from ..harness.workload import Ids
from ..peers import OURS, PEERS, Variant, Vectors
from ..peers.ours import converted
from ..speed import options as shared
from ..speed.model_source import CHECKPOINT_VARIABLE, explain_full_disk, path_from_environment
from .quality_languages import Language, read_languages
from .quality_report import Found, Quality, page
from .quality_scores import Nearness, Scores, cut, nearness, resampled_scores
from .quality_tasks import Task, read_tasks
from .quality_vectors import embed, size

EVALUATION_VARIABLE = "EMBGEMMA_EVALDATA"
DIMENSIONS = (768, 512, 256, 128)  # the Matryoshka sizes that EmbeddingGemma was trained for

# Formats of peers that lose nothing; measuring them would only take time.
EXACT_FORMATS = ("float32", "bfloat16")
COMPARABLE = tuple(name for name in PEERS if name != "sentence-transformers")  # it has exact formats only

EPILOG = """\
Each runtime embeds every text once, peers one text at a time. The vectors are kept in --cache, so the next run is
quick. Scores of float32 are shown with the published ones; they may differ by a few points where the published ones
used another prompt. "loss" is in points of the mean score.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `quality`."""
    parser.description, parser.epilog = __doc__, EPILOG
    parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE",
        help=f"model files, the float32 one first; default: {', '.join(SCHEMES)}, made of the checkpoint",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help=f"what models are made of (default: {CHECKPOINT_VARIABLE})"
    )
    parser.add_argument(
        "--compare",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,NAME,…",
        help=f"formats of these runtimes as well: {', '.join(COMPARABLE)}; needs the checkpoint",
    )
    parser.add_argument("--task", action="append", default=[], metavar="WORD", help="only sets whose name contains it")
    parser.add_argument(
        "--dims",
        type=shared.positives,
        default=DIMENSIONS,
        metavar="N,N,…",
        help=f"sizes of vector; the summary has the largest (default: {','.join(map(str, DIMENSIONS))})",
    )
    parser.add_argument("--all-languages", action="store_true", help="list every language, not only the farthest")
    shared.add_threads_and_cache(parser)
    shared.add_plot(parser)
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    parser.set_defaults(run=_run)


@dataclass(frozen=True)
class Material:
    """What is measured on; texts are token ids, with their prompts, the same for every runtime.

    Attributes:
        golden: texts, and their float32 vectors (texts, hidden); None without such a folder.
        tasks: evaluation sets, and the lists of texts of each.
        dimensions: sizes of vector, largest first.
        languages: and their texts, end to end.
    """

    golden: tuple[list[Ids], Vectors] | None
    tasks: list[tuple[Task, list[list[Ids]]]]
    dimensions: tuple[int, ...]
    languages: tuple[list[Language], list[Ids]]


def _run(options: argparse.Namespace) -> str:
    """Measures what the options ask for; returns the report and draws the plot."""
    found = measure_formats(
        options.files,
        options.checkpoint,
        options.compare,
        options.task,
        sorted(options.dims, reverse=True),
        options.cache,
        options.threads,
    )
    if options.plot:
        from .quality_plot import write_plot

        write_plot(found, options.plot)
    return page(found, all_languages=options.all_languages).text(options.markdown)


def measure_formats(
    paths: Sequence[Path],
    checkpoint: Path | None,
    names: Sequence[str],
    tasks: Sequence[str],
    dimensions: Sequence[int],
    cache: Path,
    threads: int | None,
) -> Found:
    """Measures model files, or without any all schemes made of the checkpoint, and the formats of these peers."""
    if unknown := [name for name in names if name not in COMPARABLE]:
        raise InputError(f"--compare {','.join(unknown)}: expected names of {', '.join(COMPARABLE)}")
    environment = read_environment()
    notes: list[str] = []
    with explain_full_disk(cache):
        variants = _variants(paths, checkpoint or path_from_environment(CHECKPOINT_VARIABLE), names, cache, notes)
        material = read_material(variants[0], tasks, dimensions)
        measured = []
        for variant in variants:
            progress(f"measuring {variant.key}")
            measured.append(measure(variant, variants[0], material, cache, threads))
    return Found(environment, measured, [task for task, _ in material.tasks], material.languages[0], notes)


def _variants(
    paths: Sequence[Path], checkpoint: Path | None, names: Sequence[str], cache: Path, notes: list[str]
) -> list[Variant]:
    """Our files, the float32 one first, and the peers' formats."""
    without_tokenizer = {"tokenizer": "no"}  # token ids go in, as with peers
    for path in paths:
        read_model_file(path)  # before anything else is asked for
    ours = [Variant(OURS, _name(path), path, without_tokenizer) for path in paths]
    if ours and not names:
        return ours
    if checkpoint is None:
        raise InputError(f"name model files, or a checkpoint to make them of: --checkpoint or {CHECKPOINT_VARIABLE}")
    folder = checkpoint_folder(cache, checkpoint)
    if not ours:
        made = {scheme: converted(checkpoint, folder, scheme) for scheme in SCHEMES}
        ours = [Variant(OURS, scheme, path, without_tokenizer) for scheme, path in made.items()]
    peers = [variant for name in names for variant in prepared(name, checkpoint, folder, {}, notes)]
    return [*ours, *(variant for variant in peers if variant.name not in EXACT_FORMATS)]


def _name(path: Path) -> str:
    """`int8` of `embeddinggemma-300m.int8.safetensors`; of other names, all but the last suffix."""
    last = path.stem.rpartition(".")[2]
    return last if last in SCHEMES else path.stem


def read_material(reference: Variant, wanted: Sequence[str], dimensions: Sequence[int]) -> Material:
    """All texts, tokenized by the reference model's tokenizer: golden ones and sets are those the environment names."""
    golden, evaluation = path_from_environment(GOLDEN_VARIABLE), path_from_environment(EVALUATION_VARIABLE)
    if wanted and evaluation is None:
        raise InputError(f"--task chooses evaluation sets; set {EVALUATION_VARIABLE} to a folder of them")
    texts = None if golden is None else read_golden(golden)
    tasks = [] if evaluation is None else read_tasks(evaluation, wanted)
    with load(reference.path, threads=1) as model:

        def tokenized(prompt: str | None, texts: list[str]) -> list[Ids]:
            ids = model.token_ids(texts, prompt_name=prompt if prompt in model.prompts else None)
            return [np.array(text, np.int32) for text in ids]

        hidden = model.config.hidden
        sizes = tuple(dim for dim in dimensions if 0 < dim <= hidden)
        if not sizes:
            raise InputError(f"--dims {','.join(map(str, dimensions))}: vectors of this model have {hidden} values")
        of_tasks = [(task, [tokenized(*part) for part in task.texts]) for task in tasks]
        languages = read_languages()
        in_languages = tokenized(None, [text for language in languages for text in language.texts])
        return Material(texts, of_tasks, sizes, (languages, in_languages))


def measure(variant: Variant, reference: Variant, material: Material, cache: Path, threads: int | None) -> Quality:
    """Encodes the texts that are not in the cache, and scores all at every size; languages at the full size alone."""
    near: dict[int, Nearness] = {}
    if material.golden is not None:
        texts, expected = material.golden
        (found,) = embed(variant, [texts], cache, threads)
        near = {dim: nearness(cut(expected, dim), cut(found, dim)) for dim in material.dimensions}
    scores: dict[int, list[Scores]] = {dim: [] for dim in material.dimensions}
    for task, lists in material.tasks:
        vectors = embed(variant, lists, cache, threads)
        for dim in material.dimensions:
            scores[dim].append(resampled_scores(task, [cut(part, dim) for part in vectors]))
    cosines = np.zeros(0)
    if material.languages[1]:
        (right,), (found,) = (embed(one, [material.languages[1]], cache, threads) for one in (reference, variant))
        cosines = np.einsum("td,td->t", right, found, dtype=np.float64)
    of_dims = {dim: np.array(of) for dim, of in scores.items()}
    return Quality(variant.peer, variant.name, size(variant), near, of_dims, cosines)
