"""The command `embgemma export-onnx`: makes an ONNX model, or a folder with all that an app needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..kernels.errors import BackendError, InputError
from ..kernels.install import pip_install
from ..notices import Progress, tell
from ..onnx.onnx_choices import LEAST_EXTENSIONS, NAMES, TARGETS, least_onnxruntime
from ..output_file import check_destination, keep_inputs, whole_file
from ..source import ONNX_SUFFIX
from .convert_command import read_keep

if TYPE_CHECKING:
    import argparse

_LEAST, _LEAST_INT4 = least_onnxruntime("portable", "int8"), least_onnxruntime("portable", "int4")

DESCRIPTION = f"""\
Makes an ONNX model of a published checkpoint: one file. Inputs: input_ids and attention_mask (int64, batch by tokens).
Output: unit vectors (sentence_embedding). Before the file gets its name, ONNX Runtime runs the model, and the vectors
are compared with those of the engine.

What runs it, tested with tiny models:
  --target onnxruntime  ONNX Runtime {_LEAST}
  --target portable     ONNX Runtime {_LEAST}, {_LEAST_INT4} for balanced; others that know ONNX opset 21 (ONNX 1.16)
  --text                needs onnxruntime-extensions {LEAST_EXTENSIONS} as well
"""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that `convert` does not have."""
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("-o", "--output", metavar="FILE", help="model to write, *.onnx")
    output.add_argument(
        "--bundle",
        metavar="FOLDER",
        help="folder to make instead, which transformers.js, fastembed, sentence-transformers and ONNX Runtime open as "
        "its README.md shows: onnx/model.onnx, the tokenizer, required_operators.config, and manifest.json with "
        "inputs, outputs, prompts, versions, examples to test an app with, and digests",
    )
    parser.add_argument(
        "--format",
        choices=NAMES,
        default="int8",
        help="how weights are stored: float32; int8 (default), with activations rounded token by token; balanced: int4 "
        "in blocks of 32, but int8 in the head, the first two and the last six layers; int4: an older name of balanced",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="onnxruntime",
        help="operators: ONNX Runtime's own (default), which are faster, or those of the ONNX standard",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="the model takes texts instead of token ids: strings (batch), each with its prompt before it",
    )
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="size of the vectors: 512, 256 or 128")
    parser.add_argument(
        "--operators-config",
        metavar="FILE",
        help="also write a required_operators.config: the operators that a reduced build of ONNX Runtime must keep",
    )
    parser.add_argument(
        "--last-hidden-state", action="store_true", help="give the final states of tokens as well (not of a bundle)"
    )


def run_export(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    if arguments.output is not None and Path(arguments.output).suffix != ONNX_SUFFIX:
        raise InputError(f"the name of the output, {arguments.output}, must end in {ONNX_SUFFIX}")
    keep = read_keep(arguments)
    operators_config = None if arguments.operators_config is None else Path(arguments.operators_config)
    if operators_config is not None:
        check_destination(operators_config, force=arguments.force)
        keep_inputs(operators_config, Path(arguments.checkpoint).rglob("*.*"))
        if arguments.output is not None and operators_config.resolve() == Path(arguments.output).resolve():
            raise InputError(f"--output and --operators-config both name {operators_config}; give each its own file")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        message = f"export-onnx needs the packages onnx and onnxruntime ({error}); run `{pip_install('onnx')}`"
        raise BackendError(message) from error
    from ..export.onnx.bundle import export_bundle  # only this command needs the exporter
    from ..export.onnx.export import export_onnx

    export = export_onnx if arguments.bundle is None else export_bundle
    with Progress(quiet=arguments.quiet) as progress:
        exported = export(
            arguments.checkpoint,
            arguments.output if arguments.bundle is None else arguments.bundle,
            weights_format=arguments.format,
            target=arguments.target,
            truncate_dim=arguments.truncate_dim,
            last_hidden_state=arguments.last_hidden_state,
            text=arguments.text,
            calibrated=not arguments.no_calibration,
            calibration=arguments.calibration,
            sliding_window=arguments.sliding_window,
            base=arguments.base,
            keep=keep,
            force=arguments.force,
            progress=progress,
            replaces=() if operators_config is None else (operators_config,),
        )
        if operators_config is not None:
            with whole_file(operators_config, force=arguments.force) as file:
                file.write(exported.operators_config.encode())
        if not arguments.quiet:
            tell(str(exported.verification))
        progress.wrote(exported.model)
    return 0
