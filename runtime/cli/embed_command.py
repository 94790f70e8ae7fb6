"""The command `embgemma embed`: texts from arguments, a file or a pipe; embeddings to a file or a pipe."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..find import IN_THE_BOX, opening
from ..find import SUFFIXES as MODEL_SUFFIXES
from ..inputs import check_integer, check_path
from ..kernels.errors import InputError, ModelFileError
from ..model import EmbeddingModel, load
from ..notices import Progress, TruncationWarning, count_text, tell
from ..output_file import check_destination, keep_inputs
from ..search.records import JSON_LINES, Record, argument_records, bounded_lines, json_records, line_records
from .embedding_files import SUFFIXES, EmbeddingWriter, JsonLinesWriter, check_format, open_writer
from .signals import check_standard_output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_SENTENCE = re.compile("[.!?…。！？][\"'”’)\\]]*\\s*$")  # its end
PIPE = "-"  # names standard input or output in place of a file


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command, except the model and what runs it."""
    parser.add_argument("--model", dest="named_model", metavar="MODEL", help="the MODEL; then every argument is a TEXT")
    source = parser.add_argument_group("input: TEXT, --input, or else standard input")
    source.add_argument("texts", nargs="*", metavar="TEXT", help="a text to embed")
    source.add_argument("--input", metavar="FILE", help="UTF-8 file of texts, one a line; - for standard input")
    source.add_argument("--input-format", choices=("lines", "jsonl"), help="default: by the file's suffix, else lines")
    source.add_argument("--field", help="JSONL: field that holds the text (default: text)")
    source.add_argument("--id-field", metavar="FIELD", help="JSONL: field that holds an id, to go with the embedding")
    result = parser.add_argument_group(
        "output",
        "Every output has the fingerprint of the embeddings, which names the model, the size and the prompt: JSONL in "
        "each line, npz as an array `fingerprint`, Parquet in the metadata of its schema, and npy as a second array: "
        "after `vectors = np.load(file)` of an open file, `str(np.load(file))` is the fingerprint. Embeddings may be "
        "compared if it is the same before its last hyphen.",
    )
    result.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"file that ends in {', '.join(SUFFIXES)}; JSONL on standard output if left out",
    )
    result.add_argument("--force", action="store_true", help="replace an output file that exists")
    result.add_argument(
        "--dim", "--truncate-dim", type=int, metavar="N", help="size of the embeddings, such as 512, 256 or 128"
    )
    prompt = parser.add_argument_group("prompt").add_mutually_exclusive_group()
    prompt.add_argument("--prompt-name", metavar="NAME", help="prompt of the model to put before every text")
    prompt.add_argument("--prompt", metavar="TEXT", help="prompt to put before every text")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts computed at once (default: 32)")


@dataclass
class Report:
    """Problems with single lines: written to standard error at once, and summed up at the end."""

    place: str  # what the numbers count: "line" or "text"
    written: int = 0
    unreadable: int = 0
    cut: list[int] = field(default_factory=list)  # lines that were too long

    def problem(self, record: Record) -> None:
        """Reports a record that cannot be read."""
        self.unreadable += 1
        tell(f"{self.place} {record.line}: {record.problem}")

    def sum_up(self, max_tokens: int) -> int:
        """Reports the totals, if anything went wrong; returns the exit code."""
        if self.cut:
            shown = 10
            numbers = ", ".join(map(str, self.cut[:shown])) + (", ..." if len(self.cut) > shown else "")
            tell(f"cut to {max_tokens} tokens: {len(self.cut)} too long, {self.place} {numbers}")
        if self.unreadable:
            tell(f"{self.unreadable} of {self.unreadable + self.written} could not be read; the rest is embedded")
        return 1 if self.unreadable else 0


def run_embed(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    output = None if arguments.output in (None, PIPE) else check_path("output", arguments.output)
    if arguments.input is not None:
        check_path("input", arguments.input)
    _find_texts(arguments)
    if output is None:
        check_standard_output()
    else:
        check_format(output, ids=arguments.id_field is not None)
        check_destination(output, force=arguments.force)
        piped = arguments.input in (None, PIPE) and not arguments.texts
        source = Path("/dev/stdin" if piped else arguments.input or PIPE)
    if arguments.texts and arguments.input is not None:
        raise InputError("texts were given as arguments and by --input; give one or the other")
    with ExitStack() as stack:
        records, total = stack.enter_context(_open_records(arguments))
        path = stack.enter_context(
            opening(arguments.model, scheme=arguments.scheme, revision=arguments.revision, argument="the model")
        )
        if output is not None:
            keep_inputs(output, [path, source])
        model = stack.enter_context(load(path, backend=arguments.backend, threads=arguments.threads, isa=arguments.isa))
        full = model.get_embedding_dimension()
        dim = full if arguments.dim is None else check_integer("truncate_dim", arguments.dim, 1, full)
        model.encode([], truncate_dim=dim, prompt_name=arguments.prompt_name, batch_size=arguments.batch_size)
        fingerprint = model.fingerprint(arguments.prompt_name, arguments.prompt, dim)
        writer = stack.enter_context(
            open_writer(output, dim, fingerprint, ids=arguments.id_field is not None, force=arguments.force)
            if output is not None
            else nullcontext(JsonLinesWriter(sys.stdout.buffer, fingerprint))
        )
        report = Report(place="text" if arguments.texts else "line")
        mixed = output is None and sys.stdout.isatty()  # with the rows, if anything were said
        progress = stack.enter_context(Progress(quiet=arguments.quiet or mixed))
        progress.begin("embedding", total or 0, "texts")
        while chunk := list(islice(records, arguments.batch_size)):
            _embed_chunk(model, chunk, arguments, writer, report)
            if output is None:
                sys.stdout.buffer.flush()
            progress.advance(len(chunk))
    code = report.sum_up(model.max_seq_length)
    if output is not None:
        progress.wrote(output, f"{count_text(report.written, 'embedding')} of {dim} values")
    return code


def _find_texts(arguments: argparse.Namespace) -> None:
    """Tells model and texts apart: the first argument is the model, unless it can only be a text.

    It can if there is a space in it, nothing of that name exists, and it does not end as a model file does. With a
    slash in it, it must also end as a sentence does, and begin with no folder that is there. So no model whose name is
    mistyped is taken for a text.
    """
    first, named = arguments.model, arguments.named_model
    is_text = first is not None and (named is not None or _can_only_be_text(first))
    if is_text:
        arguments.texts.insert(0, first)
    elif first and first != IN_THE_BOX and _may_be_text(first) and not _exists(first):
        raise ModelFileError(
            f"{first}: there is no such file; if it is a text, name a model before it: --model {IN_THE_BOX} "
            f"{shlex.quote(first)}"
        )
    elif first and Path(first).suffix.lower() in (*JSON_LINES, ".txt") and _is_file(first):
        raise InputError(f"{first} is no model; to embed its lines, use --input {shlex.quote(first)}")
    if named is None and (first is None or is_text):
        if is_text or not arguments.quiet:
            tell(f"no model is named: {IN_THE_BOX} embeds, a small demonstration that comes with the package")
        named = IN_THE_BOX
    arguments.model = first if named is None else named


def _can_only_be_text(argument: str) -> bool:
    if not any(map(str.isspace, argument)) or argument.endswith(MODEL_SUFFIXES):
        return False
    folder, slash, _ = argument.partition("/")
    return not _exists(argument) and not (slash and (not _SENTENCE.search(argument) or _exists(folder or slash)))


def _may_be_text(argument: str) -> bool:
    return "/" not in argument or (any(map(str.isspace, argument)) and not argument.endswith(MODEL_SUFFIXES))


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or with characters that names cannot have
        return False


@contextmanager
def _open_records(arguments: argparse.Namespace) -> Iterator[tuple[Iterator[Record], int | None]]:
    """The records of the input, and their number if it is known before reading."""
    if arguments.texts:
        _refuse(arguments, "texts that are arguments", "--input-format", "--field", "--id-field")
        for name in filter(_is_file, arguments.texts):
            tell(f"warning: the text {name!r} is also the name of a file; to embed its lines, use --input {name}")
        yield argument_records(arguments.texts), len(arguments.texts)
        return
    name = arguments.input or PIPE
    if name == PIPE and (sys.stdin is None or (arguments.input is None and sys.stdin.isatty())):
        raise InputError("no texts: give them as arguments, in a file with --input, or on standard input")
    input_format = arguments.input_format or ("jsonl" if Path(name).suffix.lower() in JSON_LINES else "lines")
    if input_format == "lines":
        _refuse(arguments, "lines of plain text", "--field", "--id-field")
    with nullcontext(sys.stdin.buffer) if name == PIPE else Path(name).open("rb") as stream:
        total = _count_lines(stream) if sys.stderr.isatty() and not arguments.quiet else None  # for progress
        if input_format == "jsonl":
            yield json_records(bounded_lines(stream), arguments.field or "text", arguments.id_field), total
        else:
            yield line_records(bounded_lines(stream)), total


def _refuse(arguments: argparse.Namespace, for_what: str, *options: str) -> None:
    """Raises InputError if one of these options was given."""
    for option in options:
        if getattr(arguments, option[2:].replace("-", "_")) is not None:
            raise InputError(f"{option} has no effect on {for_what}: leave it out, or give JSON lines by --input FILE")


def _is_file(text: str) -> bool:
    return _exists(text) and Path(text).is_file()


def _count_lines(stream: BinaryIO) -> int | None:
    """Number of lines left to read; None if they can be read only once."""
    if not stream.seekable():
        return None
    start = stream.tell()
    lines = sum(1 for _ in bounded_lines(stream))
    stream.seek(start)
    return lines


def _embed_chunk(
    model: EmbeddingModel,
    chunk: list[Record],
    arguments: argparse.Namespace,
    writer: EmbeddingWriter,
    report: Report,
) -> None:
    """Embeds the readable records of a chunk and writes the chunk in order."""
    readable = [record for record in chunk if record.problem is None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        embeddings = iter(
            model.encode(
                [record.text for record in readable],
                prompt_name=arguments.prompt_name,
                prompt=arguments.prompt,
                batch_size=arguments.batch_size,
                show_progress_bar=False,
                normalize_embeddings=True,
                truncate_dim=arguments.dim,
            )
        )
    for warning in caught:
        if isinstance(warning.message, TruncationWarning):
            report.cut += [readable[i].line for i in warning.message.indices]
        else:
            warnings.warn(warning.message, stacklevel=2)
    for record in chunk:
        if record.problem is None:
            writer.write(record, next(embeddings))
            report.written += 1
        else:
            writer.write(record, None)
            report.problem(record)
