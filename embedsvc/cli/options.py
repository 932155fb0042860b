"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from embedsvc.model_folder import PRECISION_ALIASES, Precision
from embedsvc.options import InputType, OutputDtype

Command = TypeVar("Command", bound=Callable[..., Any])


class PrecisionChoice(click.Choice[str]):
    """The names of precisions; what others call them is taken too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(PRECISION_ALIASES.get(value, value), param, ctx)


def model_options(command: Command) -> Command:
    """Add --model, --runtime, --precision and --device."""
    return _model_options(command, "--precision")


def model_options_but_precision(command: Command) -> Command:
    """Add the same with --model-precision: where --precision is the share of right pairs."""
    return _model_options(command, "--model-precision")


def _model_options(command: Command, precision: str) -> Command:
    for option in (
        click.option("--device", help="Device for torch models: cpu, cuda, cuda:1 …"),
        click.option(
            precision,
            type=PrecisionChoice(get_args(Precision)),
            default="float32",
            show_default=True,
            help="Which ONNX file of the model is run.",
        ),
        click.option(
            "--runtime",
            type=click.Choice(["auto", "static", "onnx", "torch"]),
            default="auto",
            show_default=True,
            help="What runs the model.",
        ),
        click.option("--model", help="Model folder or hub id.  [default: the bundled model]"),
    ):
        command = option(command)
    return command


def encode_options(command: Command) -> Command:
    """Add the options of `Encoder.encode` that make sense for files."""
    for option in (
        click.option(
            "--progress/--no-progress", default=None, help="Show progress (default: on a terminal)."
        ),
        click.option("--batch-tokens", type=click.IntRange(min=1), help="Padded tokens of one batch."),
        click.option(
            "--truncate",
            type=click.Choice(["none", "start", "end"]),
            default="none",
            show_default=True,
            help="Where to cut a text longer than the model takes; none refuses it.",
        ),
        click.option("--dimensions", type=click.IntRange(min=1), help="Shorter vectors (Matryoshka models)."),
    ):
        command = option(command)
    return command


def prompt_options(command: Command) -> Command:
    """Add --prompt-name and --prompt."""
    command = click.option("--prompt", help="Text put before every input.")(command)
    return click.option("--prompt-name", help="One of the model's own prompts, e.g. query.")(command)


def vector_options(command: Command) -> Command:
    """Add the options of `Encoder.encode` that decide what a vector is made of."""
    for option in (
        click.option(
            "--output-dtype",
            type=click.Choice(get_args(OutputDtype)),
            default="float32",
            show_default=True,
            help="int8 and uint8 use the model's calibration; binary and ubinary pack eight dimensions "
            "into a byte.",
        ),
        click.option("--normalize/--no-normalize", default=True, show_default=True, help="Unit vectors."),
        click.option(
            "--force-dimensions", is_flag=True, help="Any --dimensions, for a model not trained for it too."
        ),
        click.option("--max-tokens", type=click.IntRange(min=1), help="A lower limit than the model's."),
        click.option(
            "--input-type", type=click.Choice(get_args(InputType)), help="Takes the model's prompt for it."
        ),
    ):
        command = option(command)
    return command


INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)


def refuse_overwriting(out: Path, *inputs: Path) -> None:
    """Raise a usage error when the output is one of the inputs."""
    if any(out.resolve() == file.resolve() for file in inputs):
        raise click.UsageError(f"--out {out} is one of the input files; it would be overwritten")


class ByteCount(click.ParamType[int]):
    """A number of bytes such as 2GiB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail as click does."""
        from indexing.command_input import byte_count
        from indexing.errors import IndexingError

        if isinstance(value, int):
            return value
        try:
            return byte_count(value)
        except IndexingError as error:
            self.fail(str(error), param, ctx)
