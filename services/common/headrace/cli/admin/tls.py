"""headrace tls"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from headrace.cli.console import terminal
from headrace.cli.console.options import json_option, state_dir_option
from headrace.extras import require
from headrace.supervisor.state.state_dir import StateDir

if TYPE_CHECKING:
    from headrace.supervisor.servers.tls_store import TlsStore

OVERLAP_S = 5.0
"""Until every process of a running mesh trusts an authority that was added: nats-server and Envoy
take a second or two, all others ask the files at each connection."""


@dataclass(frozen=True, slots=True)
class _Row:
    role: str
    names: list[str]
    valid_until: str
    days_left: float


@click.group()
def tls() -> None:
    """Show and exchange the certificates of a mesh that was started with --tls."""


@tls.command("list")
@json_option
@state_dir_option
def list_certificates(state_dir: StateDir, as_json: bool) -> None:
    """List the certificates: who has them, for which names, and until when."""
    rows = _rows(_store(state_dir))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = terminal.table("role", "valid until", "days left", "names")
    for row in rows:
        table.add_row(row.role, row.valid_until, f"{row.days_left:.0f}", " ".join(row.names))
    terminal.console().print(table)


@tls.command()
@click.option(
    "--authority",
    is_flag=True,
    help="Also make a new authority, which signs from now on. The old ones stay trusted until "
    "`headrace tls forget-authorities`.",
)
@state_dir_option
def rotate(state_dir: StateDir, authority: bool) -> None:
    """Make new keys and certificates for all processes; nothing is restarted, no request fails.

    A running mesh renews them by itself after two thirds of their life. Use this when a key may
    have been seen by others.
    """
    store = _store(state_dir)
    if not authority:
        renewed = store.renew(datetime.now(UTC), all_roles=True)
        click.echo(f"renewed: {', '.join(renewed)}")
        return
    store.add_authority(datetime.now(UTC))
    if state_dir.is_locked:
        click.echo(f"everything trusts the new authority in {OVERLAP_S:g} s")
        time.sleep(OVERLAP_S)
    store.begin_authority(datetime.now(UTC))
    click.echo(
        "the new authority has signed all certificates; give clients the new "
        f"{store.ca}, then run `headrace tls forget-authorities`"
    )


@tls.command("forget-authorities")
@state_dir_option
def forget_authorities(state_dir: StateDir) -> None:
    """Trust only the authority that signs. What earlier ones have signed is of no use any more."""
    click.echo(f"authorities no longer trusted: {_store(state_dir).forget_authorities()}")


def _store(state_dir: StateDir) -> TlsStore:
    require("mesh", "cryptography")
    # Why here: an installation of the client alone has no cryptography.
    from headrace.supervisor.servers.tls_store import TlsStore

    store = TlsStore(state_dir.folder / "tls")
    if not store.exists:
        raise click.ClickException(
            f"the mesh in {state_dir.folder} has no certificates; start it with `headrace up --tls`"
        )
    return store


def _rows(store: TlsStore) -> list[_Row]:
    now = datetime.now(UTC)
    found = []
    for role in store.roles():
        pair = store.read(role)
        until = pair.valid[1]
        days_left = (until - now).total_seconds() / 86400
        found.append(_Row(role, list(pair.hosts), f"{until:%Y-%m-%d %H:%M}Z", round(days_left, 1)))
    return found
