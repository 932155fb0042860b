"""What the commands on collections share: where they are, and with which model they are opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedsvc.cli.options import OUTPUT_FOLDER

if TYPE_CHECKING:
    from embedsvc.collections.backends import AnyCollectionSet
    from embedsvc.collections.collection_set import CollectionSet
    from embedsvc.encoder import Encoder
    from embedsvc.reranker import Reranker

Command = TypeVar("Command", bound=Callable[..., Any])
_SHOWN_LANGUAGES = 12


def _default_data_dir() -> Path:
    from embedsvc.settings import load_settings

    return load_settings().data_dir


data_dir_option = click.option(
    "--data-dir",
    type=OUTPUT_FOLDER,
    default=_default_data_dir,
    help="Where collections are kept.  [default: $EMBEDSVC_DATA_DIR or ~/.local/share/embedsvc]",
)
filter_option = click.option(
    "--filter", "filter_json", help='Conditions on metadata, as JSON: {"year": {"$gte": 2020}}.'
)


@contextmanager
def opened_collections(
    data_dir: Path, encoder: Encoder | None = None, reranker: Reranker | None = None
) -> Iterator[AnyCollectionSet]:
    """Give the collections of the backend in the environment, by default those of a data folder.

    Without an encoder the bundled one is loaded when one is needed.
    """
    from embedsvc.collections.backends import open_collection_set
    from embedsvc.settings import load_settings

    found = open_collection_set(load_settings(data_dir=data_dir), encoder, reranker=reranker)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def embedded_collections(data_dir: Path, encoder: Encoder | None = None) -> Iterator[CollectionSet]:
    """As `opened_collections`, for what only embedded collections can do."""
    from embedsvc.collections.collection_set import CollectionSet
    from embedsvc.errors import InvalidInputError
    from embedsvc.settings import load_settings

    if load_settings().backend != "embedded":
        raise InvalidInputError("this command is for embedded collections, and EMBEDSVC_BACKEND is milvus")
    found = CollectionSet(data_dir, encoder)
    try:
        yield found
    finally:
        found.close()


def given_encoder(model: str | None, *, runtime: Any, precision: Any, device: str | None) -> Encoder | None:
    """Return the encoder that the model options ask for; None when they ask for nothing."""
    if (model, runtime, precision, device) == (None, "auto", "float32", None):
        return None
    from embedsvc.encoder import load_encoder

    return load_encoder(model, runtime=runtime, precision=precision, device=device)


def parsed_filter(given: str | None) -> dict[str, Any] | None:
    """Return the conditions of --filter; raise InvalidInputError unless they are a JSON object."""
    import json

    from embedsvc.errors import InvalidInputError

    if given is None:
        return None
    try:
        conditions = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--filter is not valid JSON: {error}", param="filter") from error
    if not isinstance(conditions, dict):
        raise InvalidInputError("--filter must be a JSON object", param="filter")
    return conditions


def languages_of(codes: tuple[str, ...]) -> list[str] | None:
    """Return the languages of --lang; None, every language, when none is given or "any"."""
    return None if not codes or "any" in codes else list(codes)


def counts(languages: Mapping[str, int]) -> str:
    """Return "en 40, de 38 and 7 more languages"."""
    ranked = Counter(languages).most_common()
    shown = ", ".join(f"{code} {count}" for code, count in ranked[:_SHOWN_LANGUAGES]) or "no languages"
    more = len(ranked) - _SHOWN_LANGUAGES
    return f"{shown} and {more} more languages" if more > 0 else shown


def creation_options(command: Command) -> Command:
    """Add the options of `CollectionOptions`, which count when a collection is made; None: not given."""
    for option in (
        click.option(
            "--recall", type=float, help="Share of the true 10 nearest that is found.  [default: 0.95]"
        ),
        click.option("--chunk-overlap", type=int, help="Tokens that passages share at most.  [default: 32]"),
        click.option("--chunk-tokens", type=int, help="Longest passage.  [default: the model's limit]"),
        click.option(
            "--token-vectors/--no-token-vectors",
            default=None,
            help="Keep the vectors of tokens, for --maxsim.",
        ),
        click.option(
            "--debias-pairs",
            metavar="FIELD",
            help="Metadata field whose equal values mark translations, for --debias shift.",
        ),
        click.option(
            "--debias",
            type=click.Choice(["none", "center", "lir", "shift"]),
            help="What is taken out of the vectors so that languages mix.  [default: none]",
        ),
        click.option("--dimension", type=int, help="Width of the vectors of a collection without a model."),
    ):
        command = option(command)
    return command
