"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from embedsvc.model_folder import PRECISION_ALIASES, Precision
from embedsvc.options import InputType, OutputDtype

Command = TypeVar("Command", bound=Callable[..., Any])
INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
INPUT_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)
OUTPUT_FOLDER = click.Path(file_okay=False, path_type=Path)


class PrecisionChoice(click.Choice[str]):
    """The names of precisions; what others call them is taken too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(PRECISION_ALIASES.get(value, value), param, ctx)


runtime_option = click.option(
    "--runtime",
    type=click.Choice(["auto", "static", "onnx", "torch"]),
    default="auto",
    show_default=True,
    help="What runs the model.",
)
progress_option = click.option(
    "--progress/--no-progress", default=None, help="Show progress (default: on a terminal)."
)
work_option = click.option(
    "--work",
    type=OUTPUT_FOLDER,
    help="Folder of all that is computed on the way: killed, the same command goes on.",
)


def margin_options(command: Command) -> Command:
    """Add --margin and --k."""
    command = click.option(
        "--k", type=click.IntRange(min=1), default=4, show_default=True, help="Neighbours per text."
    )(command)
    return click.option(
        "--margin",
        type=click.Choice(["ratio", "distance", "absolute"]),
        default="ratio",
        show_default=True,
        help="Cosine over, minus, or without the mean cosine of the neighbours.",
    )(command)


def neighbour_options(how: str) -> Callable[[Command], Command]:
    """Add --neighbours, --memory and --threads; ``how`` is the help of the first."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--threads", type=click.IntRange(min=1), help="Threads of that search.  [default: all]"
            ),
            click.option(
                "--memory", type=ByteCount(), default="2GiB", show_default=True, help="Memory of that search."
            ),
            click.option(
                "--neighbours",
                type=click.Choice(["auto", "exact", "int8", "ivf", "truncated", "gpu"]),
                default="auto",
                show_default=True,
                help=how,
            ),
        ):
            command = option(command)
        return command

    return add


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
        runtime_option,
        click.option("--model", help="Model folder or hub id.  [default: the bundled model]"),
    ):
        command = option(command)
    return command


def encode_options(command: Command) -> Command:
    """Add the options of `Encoder.encode` that make sense for files."""
    for option in (
        progress_option,
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
