"""`embedsvc index`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedsvc.cli.opening import (
    counts,
    creation_options,
    data_dir_option,
    given_encoder,
    opened_collections,
)
from embedsvc.cli.options import INPUT_FILE, model_options

if TYPE_CHECKING:
    from embedsvc.collections.backends import AnyCollection, AnyCollectionSet
    from embedsvc.collections.document import Document
    from embedsvc.encoder import Encoder

_BATCH_DOCUMENTS = 1_000
_NOT_BUILT = "no index was saved (another process builds one, or see the log above); searches work without"


@click.command()
@click.argument("file", type=INPUT_FILE)
@click.option("--collection", "name", required=True, help="Its name; it is made if it is not there.")
@click.option("--id-field", default="id", show_default=True, help="Column or key of the id.")
@click.option("--text-field", default="text", show_default=True, help="Column or key of the text.")
@click.option("--lang-field", help="Column or key of the language.  [default: language or lang, if there]")
@click.option("--vector-field", help="Column or key of a vector of one's own.  [default: vector, if there]")
@creation_options
@data_dir_option
@model_options
def index(
    file: Path,
    name: str,
    id_field: str,
    text_field: str,
    lang_field: str | None,
    vector_field: str | None,
    data_dir: Path,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **given: Any,
) -> None:
    """Add the documents of FILE (.jsonl, .ndjson, .tsv, .txt, also .gz, .xz, .zst; .parquet) to a collection.

    A line of a .txt file is a document; its id is the file's name and the line number. A document with
    an id that is already in the collection takes its place. Languages are detected where FILE does not
    give them; fields that are nothing else are metadata. An interrupted run leaves whole batches and can be
    run again. --dimension, --debias, --token-vectors, --chunk-tokens, --chunk-overlap and --recall are
    fixed when the collection is made.
    """
    from embedsvc.collections.collection_set import check_name
    from embedsvc.documents import FieldNames, read_documents
    from embedsvc.errors import InvalidInputError

    check_name(name)
    documents = read_documents(file, FieldNames(id_field, text_field, lang_field, vector_field))
    first = next(documents, None)  # before anything is made
    if first is None:
        raise InvalidInputError(f"{file} holds no documents")
    encoder = given_encoder(model, runtime=runtime, precision=precision, device=device)
    with opened_collections(data_dir, encoder) as found:
        is_new = name not in found.names()
        collection = made_or_opened(found, name, encoder, given)
        try:
            inserted, updated = _upsert_all(collection, chain([first], documents), total=_count(file))
        except BaseException:
            if is_new and not collection.count:
                found.delete(name)  # nothing could be written
            raise
        after = Counter(collection.languages())
        click.echo("building the index; the documents can be searched already", err=True)
        told = _told(collection) if collection.build_index() else _NOT_BUILT
    click.echo(told, err=True)
    click.echo(
        f"{name}: {inserted} new and {updated} updated documents, {after.total()} in all; {counts(after)}"
    )


def _told(collection: AnyCollection) -> str:
    recall = collection.info().recall
    if recall is None:
        return "index built: every search is exact"
    return f"index built: recall@10 >= {recall:.3f} in every language"


def made_or_opened(
    found: AnyCollectionSet, name: str, encoder: Encoder | None, given: dict[str, Any]
) -> AnyCollection:
    """Return a collection, made with the options given if it is not there.

    Raises InvalidInputError when it is there with others.
    """
    from embedsvc.collections.collection import CollectionOptions
    from embedsvc.collections.opening import check_options

    options = {key: value for key, value in given.items() if value is not None}
    if name not in found.names():
        return found.create(name, CollectionOptions(**options), encoder=encoder)
    collection = found.get(name)
    check_options(collection.name, collection.options, replace(collection.options, **options))
    return collection


def _upsert_all(
    collection: AnyCollection, documents: Iterator[Document], *, total: int | None
) -> tuple[int, int]:
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
            raise type(error)(
                f"{error.message} (the first {inserted + updated} documents were written; "
                "mend the line and run the command again)"
            ) from error
    return inserted, updated


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
        yield batch


def _count(file: Path) -> int | None:
    """Return the number of documents in a file, about; None for a packed one."""
    from embedsvc.compression import without_packing

    if file.suffix == ".parquet":
        from pyarrow.parquet import read_metadata

        rows: int = read_metadata(file).num_rows
        return rows
    if without_packing(file) != file:
        return None
    with file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
