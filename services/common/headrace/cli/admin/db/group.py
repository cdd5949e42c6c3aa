"""headrace db, and its commands about schema and integrity"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass

import click

from headrace.cli.admin.db.backup import backup
from headrace.cli.admin.db.restore import restore
from headrace.cli.admin.db.target import DatabaseTarget, control, database_options
from headrace.cli.console.options import json_option


@dataclass(frozen=True, slots=True)
class _Check:
    schema: str
    faults: list[str]
    """Of the database's files and of what its rows refer to."""
    audit_events: int
    audit_head: str
    audit_fault: str
    unpublished: int
    """Rows of the outbox, at most 10000: changes that are not on the bus yet."""


@click.group()
def db() -> None:
    """Upgrade, check, back up and restore the database of tenants, keys and people.

    Without --database-url it is that of the mesh in --state-dir.
    """


@db.command()
@database_options
def upgrade(target: DatabaseTarget) -> None:
    """Bring the schema to that of this version. Idempotent; back the database up first."""
    before, after = asyncio.run(control("store.database.opening").upgrade(target.url))
    click.echo(
        f"the schema is {after}, as this version needs it"
        if before == after
        else f"the schema is {after} now; it was {before or 'empty'}"
    )


@db.command()
@json_option
@database_options
def check(target: DatabaseTarget, as_json: bool) -> int:
    """Check schema, integrity and the audit's chain of hashes. Exit status 1: there is a fault.

    Keep the audit's head elsewhere: a later check that shows fewer events, or an export in which
    this event has another hash, proves that the audit was rewritten.
    """
    target.require_database()
    found = asyncio.run(_check(target))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        click.echo(f"schema     {found.schema}, as this version needs it")
        click.echo(f"integrity  {'; '.join(found.faults) or 'no fault'}")
        audit = found.audit_fault or "no fault"
        click.echo(f"audit      {audit}, {found.audit_events} events, head {found.audit_head}")
        click.echo(f"outbox     {found.unpublished} changes not yet published")
    return 1 if found.faults or found.audit_fault else 0


@db.command()
@database_options
def republish(target: DatabaseTarget) -> None:
    """Have the tables of gateways made anew from the database.

    The active control process does it within seconds; if none runs, the next one does.
    """
    target.require_database()
    asyncio.run(_republish(target))
    click.echo("the active control process compares the tables with the database now, and repairs")


db.add_command(backup)
db.add_command(restore)


async def _check(target: DatabaseTarget) -> _Check:
    store = await control("store").Store.open(target.url)
    try:
        faults = await store.integrity_faults()
        chain = await store.audit.verify_chain()
        pending = await store.outbox.pending(10_000)
    finally:
        await store.close()
    newest = control("store.database.opening").SCHEMA.newest_revision()
    return _Check(newest, list(faults), chain.events, chain.head, chain.fault, len(pending))


async def _republish(target: DatabaseTarget) -> None:
    store = await control("store").Store.open(target.url)
    try:
        await store.outbox.request_republish(by=control("base.records").SYSTEM)
    finally:
        await store.close()
