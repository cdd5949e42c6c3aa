"""headrace down"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from headrace.cli.where import state_dir_option
from headrace.mesh.home import Home

_LOOK_EVERY_S = 0.1


@click.command()
@state_dir_option
@click.option(
    "--within",
    "within_s",
    default=100.0,
    show_default=True,
    help="Seconds to drain before the mesh is killed.",
)
def down(state_dir: Path, within_s: float) -> None:
    """End the mesh of --state-dir: open requests finish, then every process goes."""
    home = Home(state_dir)
    supervisor = home.read_record().supervisor_pid
    os.kill(supervisor, signal.SIGTERM)
    if not _ends(home, within_s):
        # Its processes are on its leash: they go with it.
        os.kill(supervisor, signal.SIGKILL)
        click.echo(f"not drained after {within_s:g} s; killed")
        _ends(home, 10)
    click.echo(f"the mesh in {home.folder} is down")


def _ends(home: Home, within_s: float) -> bool:
    end_s = time.monotonic() + within_s
    while home.is_held:
        if time.monotonic() > end_s:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True
