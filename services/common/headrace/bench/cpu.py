"""CPU time of the processes of a mesh on this machine."""

from __future__ import annotations

from headrace.extras import require
from headrace.supervisor.state.state_dir import MeshRecord


def cpu_seconds(record: MeshRecord | None) -> dict[str, float]:
    """Return the CPU time of each process since its start, by name; ended ones are left out."""
    if record is None:
        return {}
    pids = {process.name: process.pid for process in record.processes}
    pids["supervisor"] = record.supervisor_pid
    psutil = require("mesh", "psutil")
    found: dict[str, float] = {}
    for name, pid in pids.items():
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[name] = times.user + times.system
    return found


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return the CPU time used in between; a restarted process counts from its start."""
    return {
        name: used - (start if (start := before.get(name, 0.0)) <= used else 0.0)
        for name, used in after.items()
    }
