"""`embedsvc index`, `embedsvc search` and `embedsvc collections`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedsvc.cli.options import INPUT_FILE, model_options

if TYPE_CHECKING:
    from embedsvc.collections.collection import Collection, Hit
    from embedsvc.collections.collection_set import CollectionSet
    from embedsvc.collections.document import Document

Command = TypeVar("Command", bound=Callable[..., Any])
_BATCH_DOCUMENTS = 1_000
_SHOWN_LANGUAGES = 12


def _default_data_dir() -> Path:
    from embedsvc.settings import load_settings

    return load_settings().data_dir


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=_default_data_dir,
    help="Where collections are kept.  [default: $EMBEDSVC_DATA_DIR or ~/.local/share/embedsvc]",
)


@click.command()
@click.argument("file", type=INPUT_FILE)
@click.option("--collection", "name", required=True, help="Its name; it is made if it is not there.")
@click.option("--id-field", default="id", show_default=True, help="Column or key of the id.")
@click.option("--text-field", default="text", show_default=True, help="Column or key of the text.")
@click.option("--lang-field", help="Column or key of the language.  [default: language or lang, if there]")
@data_dir_option
@model_options
def index(
    file: Path,
    name: str,
    id_field: str,
    text_field: str,
    lang_field: str | None,
    data_dir: Path,
    **model: Any,
) -> None:
    """Add the documents of FILE (.jsonl, .tsv or .txt) to a collection.

    A line of a .txt file is a document; its id is the file's name and the line number. A document with
    an id that is already in the collection takes its place. Languages are detected where FILE does not
    give them. An interrupted run leaves whole batches and can be run again.
    """
    from embedsvc.collections.collection_set import check_name
    from embedsvc.collections.segments import FLAT_LIMIT
    from embedsvc.documents import FieldNames, read_documents
    from embedsvc.errors import InvalidInputError

    check_name(name)
    documents = read_documents(file, FieldNames(id_field, text_field, lang_field))
    first = next(documents, None)  # before anything is made
    if first is None:
        raise InvalidInputError(f"{file} holds no documents")
    documents = chain([first], documents)
    with _collections(data_dir, **model) as found:
        collection = found.open(name)
        inserted, updated = _upsert_all(collection, documents, total=_count_lines(file))
        after = Counter(collection.languages())
        if after.total() > FLAT_LIMIT:
            click.echo(f"indexing {after.total()} documents; they can be searched already", err=True)
        collection.build_index()
    click.echo(
        f"{name}: {inserted} new and {updated} updated documents, {after.total()} in all; {_counts(after)}"
    )


@click.command()
@click.argument("name")
@click.argument("query")
@click.option("--lang", "languages", multiple=True, help="Only documents in this language; may be repeated.")
@click.option("--top-k", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--offset", type=click.IntRange(0, 9000), default=0, show_default=True, help="Hits to skip.")
@click.option("--min-score", type=float, help="Drop hits with a lower cosine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per hit.")
@data_dir_option
@model_options
def search(
    name: str, query: str, languages: tuple[str, ...], as_json: bool, data_dir: Path, **options: Any
) -> None:
    """Search collection NAME for documents near in meaning to QUERY, in any language."""
    model = {key: options.pop(key) for key in ("model", "runtime", "precision", "device")}
    with _collections(data_dir, **model) as found:
        hits = found.get(name).search(query, languages=languages or None, **options)
        for line in map(_json_line, hits) if as_json else _table(hits):
            click.echo(line)
    if not hits:
        click.echo("no hits", err=True)


@click.group()
def collections() -> None:
    """List, describe and delete collections."""


@collections.command("list")
@data_dir_option
def list_collections(data_dir: Path) -> None:
    """List all collections with their number of documents."""
    from embedsvc.collections.collection_set import CollectionSet
    from embedsvc.errors import EmbedsvcError

    found = CollectionSet(data_dir)
    for name in found.names():
        try:
            about = found.get(name).info()
        except EmbedsvcError as error:
            click.echo(f"{name}\tcannot be opened: {error.message}")
            continue
        click.echo(f"{name}\t{about.documents} documents\t{len(about.languages)} languages\t{about.model}")
    found.close()


@collections.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_dir_option
def info(name: str, as_json: bool, data_dir: Path) -> None:
    """Describe collection NAME: documents, languages, model, size."""
    from embedsvc.collections.collection_set import CollectionSet

    found = CollectionSet(data_dir)
    about = asdict(found.get(name).info())
    found.close()
    if as_json:
        click.echo(json.dumps(about))
        return
    about["languages"] = _counts(about["languages"])
    about["created"] = datetime.fromtimestamp(about["created"], UTC).isoformat(timespec="seconds")
    for key, value in about.items():
        click.echo(f"{key:12} {value}")


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_dir_option
def delete(name: str, yes: bool, data_dir: Path) -> None:
    """Delete collection NAME and all its documents."""
    from embedsvc.collections.collection_set import CollectionSet

    found = CollectionSet(data_dir)
    count = found.get(name).count
    if not yes:
        click.confirm(f"delete collection {name!r} with {count} documents?", abort=True)
    found.delete(name)
    click.echo(f"deleted {name}: {count} documents")


@contextmanager
def _collections(
    data_dir: Path, *, model: str | None, runtime: Any, precision: Any, device: str | None
) -> Iterator[CollectionSet]:
    from embedsvc.collections.collection_set import CollectionSet
    from embedsvc.encoder import load_encoder

    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    found = CollectionSet(data_dir, encoder)
    try:
        yield found
    finally:
        found.close()


def _upsert_all(collection: Collection, documents: Iterator[Document], *, total: int) -> tuple[int, int]:
    """Write documents batch by batch under a progress bar; return how many were new and how many replaced."""
    from tqdm import tqdm

    from embedsvc.errors import InvalidInputError

    inserted = updated = 0
    with tqdm(total=total, desc="index", unit="doc", disable=None) as bar:
        try:
            for batch in _batches(documents):
                result = collection.upsert(batch)
                inserted, updated = inserted + result.inserted, updated + result.updated
                bar.update(len(batch))
        except InvalidInputError as error:
            if not inserted + updated:
                raise
            raise InvalidInputError(
                f"{error.message} (the first {inserted + updated} documents were written; "
                "mend the line and run the command again)"
            ) from error
    return inserted, updated


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
        yield batch


def _count_lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))


def _counts(languages: dict[str, int]) -> str:
    """Return "en 40, de 38 and 7 more languages"."""
    ranked = Counter(languages).most_common()
    shown = ", ".join(f"{code} {count}" for code, count in ranked[:_SHOWN_LANGUAGES]) or "no languages"
    more = len(ranked) - _SHOWN_LANGUAGES
    return f"{shown} and {more} more languages" if more > 0 else shown


def _json_line(hit: Hit) -> str:
    return json.dumps(asdict(hit), ensure_ascii=False)


def _table(hits: list[Hit]) -> Iterator[str]:
    """Yield one line per hit: score, language, id, and as much of the text as fits."""
    widest = max((len(hit.id) for hit in hits), default=0)
    room = max(shutil.get_terminal_size((120, 24)).columns - widest - 13, 20)
    for hit in hits:
        text = " ".join(hit.text.split())
        cut = text if len(text) <= room else text[: room - 1] + "…"
        yield f"{hit.score:6.3f}  {hit.language:3}  {hit.id:{widest}}  {cut}"
