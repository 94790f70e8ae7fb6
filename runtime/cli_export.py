"""The command `embgemma export-onnx`: a checkpoint as an ONNX model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .kernels.errors import BackendError
from .onnx_choices import FORMATS, TARGETS
from .output_file import check_destination, whole_file

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Makes an ONNX model of a published checkpoint: one file, input_ids and attention_mask in (int64, batch by tokens), unit
vectors out (sentence_embedding). It is run in ONNX Runtime and compared with the engine before it takes its name.

ONNX Runtime versions: target onnxruntime needs 1.18, and 1.20 for int4; target portable is in operators of ONNX opset
21 alone (ONNX 1.16), for ONNX Runtime 1.20 and other runtimes.
"""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that `convert` does not have too."""
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="model to write, *.onnx")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="int8",
        help="how weights are stored: float32; int8 (default), with activations rounded token by token; int4, in "
        "blocks of 32",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="onnxruntime",
        help="whose operators: ONNX Runtime's own (default), which are faster, or those of the ONNX standard",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="take texts (strings, batch; prompts before them are yours to add) instead of input_ids and "
        "attention_mask: needs onnxruntime-extensions, here and in the app",
    )
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="size of the vectors: 512, 256 or 128")
    parser.add_argument(
        "--operators-config",
        metavar="FILE",
        help="also write the operators that a reduced build of ONNX Runtime must keep: a required_operators.config",
    )
    parser.add_argument("--last-hidden-state", action="store_true", help="give the vectors of tokens as well")


def run_export(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        message = f"export-onnx needs the packages onnx and onnxruntime ({error}); run `pip install 'embgemma[onnx]'`"
        raise BackendError(message) from error
    from .export.onnx.export import export_onnx  # only this command needs the exporter

    operators_config = None if arguments.operators_config is None else Path(arguments.operators_config)
    if operators_config is not None:
        check_destination(operators_config, force=arguments.force)
    exported = export_onnx(
        arguments.checkpoint,
        arguments.output,
        arguments.format,
        target=arguments.target,
        truncate_dim=arguments.truncate_dim,
        last_hidden_state=arguments.last_hidden_state,
        text=arguments.text,
        calibrated=not arguments.no_calibration,
        calibration=arguments.calibration,
        sliding_window=arguments.sliding_window,
        force=arguments.force,
    )
    if operators_config is not None:
        with whole_file(operators_config) as file:
            file.write(exported.operators_config.encode())
    size = exported.model.stat().st_size / 1e6
    sys.stderr.write(f"embgemma: {exported.verification}\nembgemma: wrote {exported.model} ({size:.1f} MB)\n")
    return 0
