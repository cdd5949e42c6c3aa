"""headrace db backup"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from headrace.cli.admin.db.target import (
    DatabaseTarget,
    broker_option,
    control,
    database_options,
)
from headrace.cli.console.options import json_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@broker_option
@json_option
@database_options
def backup(target: DatabaseTarget, file: Path, as_json: bool) -> None:
    """Write the database, and what the broker stores, to FILE, a new tar.gz.

    Everything may run meanwhile. The database is as it was at one moment, and so is each stream of
    the broker: requests that wait, results, dead letters, model cards, files. FILE has addresses of
    people and prompts of requests; only its owner may read it. It does not have the peppers,
    without which no key in it is valid, nor the keys of webhooks: keep copies of secrets/peppers
    and secrets/webhooks elsewhere.
    """
    target.require_database()
    manifest = asyncio.run(_backup(target, file))
    if as_json:
        click.echo(json.dumps(asdict(manifest), indent=1))
        return
    click.echo(f"wrote {file}, {file.stat().st_size} bytes: the database at {manifest.created}")
    for name, part in manifest.parts.items():
        if not name.endswith(".json"):
            click.echo(f"  {part.items:>8} in {name}")
    if not manifest.streams:
        click.echo("without the broker: with --database-url, name it with --nats-url")
    click.echo("the peppers are not in it: without secrets/peppers, no key of it is valid")


async def _backup(target: DatabaseTarget, file: Path) -> Any:
    save_backup = control("store.backup.saving").save_backup
    async with target.broker("db backup") as bus:
        return await save_backup(target.url, bus, file)
