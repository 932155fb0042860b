"""`embedsvc collections`: all that is done with collections but filling and searching them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from embedsvc.cli.migrate import migrate_command
from embedsvc.cli.opening import (
    counts,
    creation_options,
    data_dir_option,
    embedded_collections,
    filter_option,
    given_encoder,
    languages_of,
    opened_collections,
    parsed_filter,
)
from embedsvc.cli.options import OUTPUT_FILE, OUTPUT_FOLDER, model_options


@click.group()
def collections() -> None:
    """Make, list, describe, export, back up, verify, re-embed and delete collections."""


collections.add_command(migrate_command)


@collections.command("list")
@data_dir_option
def list_collections(data_dir: Path) -> None:
    """List all collections with their number of documents."""
    from embedsvc.errors import EmbedsvcError

    with opened_collections(data_dir) as found:
        for name in found.names():
            try:
                about = found.get(name).info()
            except EmbedsvcError as error:
                click.echo(f"{name}\tcannot be opened: {error.message}")
                continue
            model = about.model or f"no model, dimension {about.dimension}"
            click.echo(f"{name}\t{about.documents} documents\t{len(about.languages)} languages\t{model}")


@collections.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_dir_option
def info(name: str, as_json: bool, data_dir: Path) -> None:
    """Describe collection NAME: documents, languages, model, options, size, recall."""
    with opened_collections(data_dir) as found:
        about = asdict(found.get(name).info())
    if as_json:
        click.echo(json.dumps(about, ensure_ascii=False))
        return
    about["languages"] = counts(about["languages"])
    about["fields"] = ", ".join(about["fields"]) or "none"
    about["model"] = about["model"] or "none"
    about["options"] = ", ".join(f"{key} = {json.dumps(value)}" for key, value in about["options"].items())
    about["created"] = _time(about["created"])
    about["recall"] = "every search is exact" if about["recall"] is None else f"{about['recall']:.3f}"
    for key, value in about.items():
        click.echo(f"{key:12} {value}")


@collections.command()
@click.argument("name")
@creation_options
@data_dir_option
@model_options
def create(
    name: str,
    data_dir: Path,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **given: Any,
) -> None:
    """Make the empty collection NAME, of a model or with --dimension for vectors that documents bring."""
    from embedsvc.collections.collection import CollectionOptions

    options = CollectionOptions(**{key: value for key, value in given.items() if value is not None})
    encoder = given_encoder(model, runtime=runtime, precision=precision, device=device)
    if encoder is not None and options.dimension is not None:
        raise click.UsageError(
            "--dimension makes a collection without a model; leave out the model's options"
        )
    with opened_collections(data_dir, encoder) as found:
        about = found.create(name, options).info()
    of = f"of model {about.model}" if about.model else "without a model"
    click.echo(f"made {name}: {of}, dimension {about.dimension}")


@collections.command()
@click.argument("name")
@click.option("--out", type=OUTPUT_FILE, help="The .jsonl file to write.  [default: standard output]")
@click.option("--vectors", is_flag=True, help="With each document's vector.")
@click.option("--lang", "languages", multiple=True, help="Only documents in this language; may be repeated.")
@filter_option
@data_dir_option
def export(
    name: str,
    out: Path | None,
    vectors: bool,
    languages: tuple[str, ...],
    filter_json: str | None,
    data_dir: Path,
) -> None:
    """Write the documents of collection NAME as JSONL, as `embedsvc index` and the server read them."""
    from embedsvc.collections.transfer import export_lines
    from embedsvc.textfiles import atomic_write

    conditions = parsed_filter(filter_json)
    with opened_collections(data_dir) as found:
        lines = export_lines(
            found.get(name), vectors=vectors, filter=conditions, languages=languages_of(languages)
        )
        if out is None:
            for line in lines:
                click.echo(line)
            return
        with atomic_write(out) as file:
            count = sum(1 for line in lines if file.write(f"{line}\n".encode()))
    click.echo(f"wrote {out}: {count} documents", err=True)


@collections.command()
@click.argument("name")
@click.argument("folder", type=OUTPUT_FOLDER)
@data_dir_option
def backup(name: str, folder: Path, data_dir: Path) -> None:
    """Copy collection NAME, as it is at this moment, into the new folder FOLDER; it stays in use."""
    from embedsvc.collections.transfer import backup as back_up

    with embedded_collections(data_dir) as found:
        back_up(found.get(name), folder)
    click.echo(f"backed up {name} into {folder}")


@collections.command()
@click.argument("folder", type=OUTPUT_FOLDER)
@click.option("--name", help="The new collection's name.  [default: that of the one backed up]")
@data_dir_option
def restore(folder: Path, name: str | None, data_dir: Path) -> None:
    """Make a collection from the backup in FOLDER; one of the same name is never overwritten."""
    from embedsvc.collections.collection_set import check_name
    from embedsvc.collections.transfer import backed_up_name
    from embedsvc.collections.transfer import restore as restore_backup
    from embedsvc.errors import InvalidInputError

    name = name or backed_up_name(folder)
    check_name(name)
    with embedded_collections(data_dir) as found:
        if name in found.names():
            raise InvalidInputError(f"collection {name!r} exists already; give another --name")
        restore_backup(folder, found.folder / name)
        count = found.get(name).count
    click.echo(f"restored {name}: {count} documents")


@collections.command()
@click.argument("name")
@data_dir_option
def verify(name: str, data_dir: Path) -> None:
    """Check database, vectors and index of collection NAME against each other; change nothing."""
    from embedsvc.collections.backends import verify_any

    with opened_collections(data_dir) as found:
        report = verify_any(found.get(name))
    for problem in report.problems:
        click.echo(problem)
    looked_at = ", ".join(f"{count} {what}" for what, count in report.checked.items())
    click.echo(f"{name}: {'ok' if report.ok else f'{len(report.problems)} problems'}; checked {looked_at}")
    if not report.ok:
        sys.exit(1)


@collections.command()
@click.argument("name")
@data_dir_option
@model_options
def reindex(
    name: str, data_dir: Path, model: str | None, runtime: Any, precision: Any, device: str | None
) -> None:
    """Encode the documents of collection NAME anew with --model, while it serves with the old one.

    Interrupted and run again it goes on. Nothing changes for searches until all is done.
    """
    from tqdm import tqdm

    from embedsvc.collections.reindex import reindex as reindex_collection
    from embedsvc.encoder import load_encoder

    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    with embedded_collections(data_dir) as found, tqdm(desc="reindex", unit="doc", disable=None) as bar:

        def report(done: int, total: int) -> None:
            if bar.total is None:
                bar.initial = bar.n = done  # by an earlier run: no part of the estimate
            bar.total = total
            bar.update(done - bar.n)

        result = reindex_collection(found.get(name), encoder, progress=report)
    resumed = f" ({result.resumed} more by an earlier run)" if result.resumed else ""
    click.echo(f"{name}: {result.documents} documents encoded{resumed}; its model is now {encoder.name}")


@collections.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most entries.")
@data_dir_option
def log(name: str, limit: int, data_dir: Path) -> None:
    """Show the last changes of collection NAME, the newest first."""
    with embedded_collections(data_dir) as found:
        for entry in found.get(name).operations(limit):
            click.echo(
                f"{entry.generation:6}  {_time(entry.at)}  {entry.kind:8}  {entry.documents} documents"
            )


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_dir_option
def delete(name: str, yes: bool, data_dir: Path) -> None:
    """Delete collection NAME and all its documents."""
    with opened_collections(data_dir) as found:
        count = found.get(name).count
        if not yes:
            click.confirm(f"delete collection {name!r} with {count} documents?", abort=True)
        found.delete(name)
    click.echo(f"deleted {name}: {count} documents")


@collections.command("delete-documents")
@click.argument("name")
@click.option("--id", "ids", multiple=True, help="The document with this id; may be repeated.")
@click.option("--lang", "languages", multiple=True, help="All in this language; may be repeated.")
@filter_option
@data_dir_option
def delete_documents(
    name: str, ids: tuple[str, ...], languages: tuple[str, ...], filter_json: str | None, data_dir: Path
) -> None:
    """Delete documents of collection NAME by id, or all that --filter and --lang let through."""
    if ids and (languages or filter_json):
        raise click.UsageError("give --id, or --filter and --lang, not both")
    if any(code.lower() == "any" for code in languages):  # elsewhere every language; also the code of Anyin
        raise click.UsageError(
            "--lang any is refused here: leave it out beside --filter; to delete every document, delete the "
            "collection"
        )
    conditions = parsed_filter(filter_json)
    with opened_collections(data_dir) as found:
        collection = found.get(name)
        if ids:
            deleted = collection.delete(ids)
        else:
            deleted = collection.delete_where(conditions, languages=languages or None)
        count = collection.count
    click.echo(f"{name}: {deleted} documents deleted, {count} left")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
