"""headrace down"""

from __future__ import annotations

import time
from pathlib import Path

import click
import psutil

from headrace.cli.console.options import state_dir_option
from headrace.supervisor.state.state_dir import StateDir

_LOOK_EVERY_S = 0.1


@click.command()
@state_dir_option
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0),
    help="Seconds to drain before the mesh is killed. Default: what its settings add up to.",
)
def down(state_dir: Path, within_s: float | None) -> None:
    """End the mesh of --state-dir: open requests finish, then every process goes."""
    home = StateDir(state_dir)
    record = home.read_record()
    within_s = record.stops_within_s if within_s is None else within_s
    supervisor = psutil.Process(record.supervisor_pid)
    supervisor.terminate()
    if not _ends(supervisor, within_s):
        # Its processes are on its leash: they go with it.
        supervisor.kill()
        click.echo(f"not drained after {within_s:g} s; killed")
        _ends(supervisor, 10)
    click.echo(f"the mesh in {home.folder} is down")


def _ends(process: psutil.Process, within_s: float) -> bool:
    end_s = time.monotonic() + within_s
    while _runs(process):
        if time.monotonic() > end_s:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _runs(process: psutil.Process) -> bool:
    """Whether it does; one that nobody has reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
