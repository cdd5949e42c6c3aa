"""headrace db restore"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from headrace.bus import Bus, LeaseTaken
from headrace.cli.admin.db.target import (
    DatabaseTarget,
    broker_option,
    control,
    database_options,
)
from headrace.errors import FailedPrecondition
from headrace.supervisor.state.failures import MeshRunning

_LEASE = "control"
_SHOWN_KEYS = 50


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@broker_option
@click.option(
    "--keep-keys/--without-keys",
    default=None,
    help="Whether the keys of the backup are restored. Those that were revoked or rotated since it "
    "was made are then valid as they were; without keys, the next start makes admin.key and "
    "cli.key as for a new mesh, and all others have to be made anew.",
)
@click.option("--force", is_flag=True, help="Replace a database and a broker that are not empty.")
@database_options
def restore(target: DatabaseTarget, file: Path, keep_keys: bool | None, force: bool) -> None:
    """Restore a backup into an empty database and broker, while the mesh does not run.

    Sessions and invitations are not restored: people sign in again. Roles and memberships are those
    of the backup. If the database that is replaced is the one that the backup was made of, keys
    that it has as revoked or rotated, and people whom it has as deactivated,
    stay so.
    """
    if target.nats_url is None and target.chosen_url is None and target.state_dir.is_locked:
        raise MeshRunning(
            f"a mesh is running in {target.state_dir.folder}; end it with `headrace down`"
        )
    with control("store.backup.archive").open_archive(file) as archive:
        manifest = archive.manifest
        if keep_keys is None and manifest.valid_keys:
            raise click.UsageError(
                f"the backup of {manifest.created} has {manifest.valid_keys} valid keys. Keys that"
                " were revoked since would be valid again: choose --keep-keys or --without-keys"
            )
        report, keys = asyncio.run(
            _restore(target, archive, keep_keys=bool(keep_keys), force=force)
        )
    click.echo(f"restored the backup of {manifest.created}, made by Headrace {manifest.headrace}")
    if not manifest.streams:
        click.echo("it has no broker's streams")
    _say_keys(report, keys, manifest.created)


def _say_keys(report: Any, keys: list[Any], time: str) -> None:
    if report.ended_keys or report.ended_people:
        click.echo(
            f"ended since the backup, and still so: {report.ended_keys} keys,"
            f" {report.ended_people} people"
        )
    if not report.valid_keys:
        click.echo("no key is valid: the next start makes admin.key and cli.key")
        return
    click.echo(f"WARNING: {report.valid_keys} keys are valid as of {time}, whatever came after:")
    for key in keys:
        owner = f" of person {key.person}" if key.person else ""
        click.echo(f"  {key.key_id}  tenant {key.tenant}{owner}  {key.display_name}")
    if report.valid_keys > len(keys):
        click.echo(f"  and {report.valid_keys - len(keys)} more: headrace key list")
    click.echo("revoke what should have ended: headrace key revoke ID")
    click.echo("keys work with the peppers of the mesh that made them alone: secrets/peppers there")
    click.echo(f"roles and memberships are those of {time} too: headrace person list")


async def _restore(
    target: DatabaseTarget, archive: Any, *, keep_keys: bool, force: bool
) -> tuple[Any, list[Any]]:
    restoring = control("store.backup.restoring")
    async with target.broker("db restore") as bus:
        if bus is not None and target.nats_url is not None:
            # Why not else: no mesh of the state directory runs.
            await _require_no_control(bus)
        if not force:
            await restoring.check_empty(target.url, bus)
        if bus is not None:
            await restoring.restore_broker(archive, bus)
        report = await restoring.restore_database(archive, target.url, keep_keys=keep_keys)
    store = await control("store").Store.open(target.url)
    try:
        options = control("store").PageOptions(_SHOWN_KEYS)
        keys = list((await store.keys.list(options=options)).items)
    finally:
        await store.close()
    return report, keys


async def _require_no_control(bus: Bus) -> None:
    """Refuse while a control process is active: it would publish what is half restored."""
    if "KV_headrace_leases" not in await bus.stored():
        return
    try:
        # It expires by itself, long before a control process that is started now asks for it.
        await bus.acquire(_LEASE, "headrace db restore", ttl_s=1)
    except LeaseTaken as error:
        raise FailedPrecondition(f"a control process is active ({error}): stop it first") from error
