"""`embedsvc keys`: make, list and revoke the API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def _or_from_settings(ctx: click.Context, param: click.Parameter, given: Path | None) -> Path:
    from embedsvc.settings import load_settings

    found = given or load_settings().keys_file
    if found is None:
        raise click.MissingParameter(ctx=ctx, param=param)
    return found


keys_file_option = click.option(
    "--keys-file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_or_from_settings,
    help="The server's file of keys.  [default: $EMBEDSVC_KEYS_FILE]",
)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys; a running server sees the change within a second."""


@keys.command()
@click.option("--name", required=True, help="Who has the key: letters, digits, dot, dash, underscore.")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    default="read",
    show_default=True,
    help="read: encode, search, mine; write: also change documents; admin: also delete collections.",
)
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="Above it requests get 429.")
@click.option("--texts-per-minute", type=click.IntRange(min=1), help="Above it requests get 429.")
@keys_file_option
def create(name: str, keys_file: Path, **limits: Any) -> None:
    """Make a key and print it; it is shown this once and kept nowhere."""
    from embedsvc.api_keys import KeyLimits, create_key

    click.echo(create_key(keys_file, name, KeyLimits(**limits)))


@keys.command(name="list")
@keys_file_option
def list_keys(keys_file: Path) -> None:
    """List the keys: name, scope, limits, day of creation."""
    from embedsvc.api_keys import read_keys

    for key in read_keys(keys_file).keys:
        limits = [
            f"{limit} {what}/min"
            for limit, what in ((key.requests_per_minute, "requests"), (key.texts_per_minute, "texts"))
            if limit
        ]
        click.echo(f"{key.name}  {key.scope}  {', '.join(limits) or 'no limit'}  {key.created}")


@keys.command()
@click.argument("name")
@keys_file_option
def revoke(name: str, keys_file: Path) -> None:
    """Revoke the key NAME."""
    from embedsvc.api_keys import revoke_key

    revoke_key(keys_file, name)
    click.echo(f"revoked {name}")
