"""headrace down"""

from __future__ import annotations

import time
from typing import Any

import click

from headrace.cli.console.options import state_dir_option
from headrace.extras import require
from headrace.supervisor.state.state_dir import StateDir

_POLL_S = 0.1
_KILL_TIMEOUT_S = 10.0


@click.command()
@state_dir_option
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0),
    help="Kill the mesh if it has not drained after this many seconds. Default: the sum of the "
    "timeouts in its settings.",
)
def down(state_dir: StateDir, within_s: float | None) -> None:
    """Stop the mesh of --state-dir: open requests finish, then every process ends."""
    record = state_dir.read_record()
    within_s = record.stops_within_s if within_s is None else within_s
    psutil = require("mesh", "psutil")
    supervisor = psutil.Process(record.supervisor_pid)
    supervisor.terminate()
    if not _ends(psutil, supervisor, within_s):
        # The kernel kills its processes with it: headrace.supervisor.parent_watch.
        supervisor.kill()
        click.echo(f"not drained after {within_s:g} s; killed")
        _ends(psutil, supervisor, _KILL_TIMEOUT_S)
    click.echo(f"the mesh in {state_dir.folder} is down")


def _ends(psutil: Any, process: Any, within_s: float) -> bool:
    """Wait for the process to end; return whether it did."""
    end_s = time.monotonic() + within_s
    while time.monotonic() <= end_s:
        try:
            # Why not `wait`: a process that its parent has not reaped yet has ended all the same.
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_POLL_S)
    return False
