"""`embedsvc serve`. Its options are the fields of `Settings`, so that the two cannot drift."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from embedsvc.cli.options import PrecisionChoice
from embedsvc.model_folder import Precision
from embedsvc.settings import PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(command: Command) -> Command:
    """Add one option per field of `Settings`; an option that is not given is left out of the settings."""
    for name, field in reversed(Settings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default in (None, ()) else f"  [default: {_default(field.default)}]"
        repeatable = get_origin(field.annotation) is tuple
        command = click.option(
            f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag,
            name,
            type=_click_type(field.annotation),
            default=None,
            multiple=repeatable,
            help=f"{field.description}{' Can be repeated.' if repeatable else ''}{default}",
        )(command)
    return command


def _default(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _click_type(annotation: Any) -> Any:
    """``int | None`` and ``tuple[int, ...]`` → int, ``Literal[...]`` → a choice, ``Path`` → a path.

    Bounds are left to `Settings`.
    """
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is tuple:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        choice = PrecisionChoice if annotation == Precision else click.Choice
        return choice(get_args(annotation))
    return click.Path(path_type=Path) if annotation is Path else annotation


@click.command(
    epilog=f"Each option is also a variable and a key of the settings file: --data-dir is {PREFIX}DATA_DIR "
    "and data_dir. Options go before variables before the file."
)
@settings_options
def serve(**options: Any) -> None:
    """Start the HTTP server; Ctrl-C or SIGTERM ends it after the requests in flight."""
    from embedsvc.errors import InvalidInputError
    from embedsvc.settings import load_settings

    given = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        settings = load_settings(**given)
    except InvalidInputError as error:
        if error.param not in given:
            raise
        raise click.UsageError(f"--{error.param.replace('_', '-')}: {error.message}") from error
    from embedsvc.server.run import run_server

    run_server(settings)
