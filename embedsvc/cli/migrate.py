"""`embedsvc collections migrate`: copy a collection to Milvus."""

from __future__ import annotations

from pathlib import Path

import click

from embedsvc.cli.opening import data_dir_option


@click.command("migrate")
@click.argument("name")
@click.option("--to", "uri", required=True, help="Milvus: http://HOST:19530, or a file for milvus-lite.")
@click.option("--as", "target_name", help="Name there.  [default: NAME]")
@click.option("--token", help="API key, or USER:PASSWORD.  [default: $EMBEDSVC_MILVUS_TOKEN]")
@data_dir_option
def migrate_command(name: str, uri: str, target_name: str | None, token: str | None, data_dir: Path) -> None:
    """Copy collection NAME to Milvus, with the vectors it has.

    An interrupted run can be run again: it copies what is missing or has changed since.
    """
    from tqdm import tqdm

    from embedsvc.collections.collection_set import CollectionSet, check_name
    from embedsvc.collections.milvus_migration import migrate, open_target
    from embedsvc.settings import load_settings

    check_name(target_name or name)
    settings = load_settings()
    found = CollectionSet(data_dir)
    try:
        source = found.get(name)
        target = open_target(source, uri, name=target_name, token=token or settings.milvus_token)
        with target, tqdm(desc="migrate", unit="doc", disable=None) as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            copied = migrate(source, target, progress=report)
            click.echo(f"{target.name}: {copied} documents copied, {target.count} in all")
    finally:
        found.close()
