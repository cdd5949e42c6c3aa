"""Errors of starting, running and controlling a mesh on this machine.

MeshError
├── InvalidOption       an option has an impossible value; nothing was started
├── AssetMissing        the installation is incomplete
├── PortTaken           another program listens on the mesh's port
├── DiskFull            the state directory cannot be written
├── MeshRunning         another mesh uses this state directory
├── MeshNotRunning      no mesh uses this state directory
├── ModelServed         a model is to be removed that a worker serves
├── ProcessFailed       a process cannot be started
└── CanaryFailed        every process is ready, but no token comes through
"""

from __future__ import annotations

from pathlib import Path

from headrace.supervisor.state.disk import disk_problem
from headrace.supervisor.state.files import last_lines

_SHOWN_LINES = 12


class MeshError(Exception):
    """Base. The text states the fact, and what to do where there is something to do."""


class InvalidOption(MeshError):
    """An option has an impossible value; nothing was started."""


class AssetMissing(MeshError):
    """The installation is incomplete."""


class PortTaken(MeshError):
    """Another program listens on the mesh's port; nothing was started."""


class DiskFull(MeshError):
    """The state directory cannot be written; nothing was started."""


class MeshRunning(MeshError):
    """Another supervisor has locked this state directory."""


class MeshNotRunning(MeshError):
    """No supervisor has locked this state directory."""


class ModelServed(MeshError):
    """A worker serves the model that is to be removed."""


class ProcessFailed(MeshError):
    """A process cannot be started. The text ends with the last lines of its log."""

    def __init__(self, name: str, fact: str, log: Path) -> None:
        lines = last_lines(log, _SHOWN_LINES)
        shown = "".join(f"\n  | {line}" for line in lines)
        if (problem := disk_problem(log.parent)) is not None:
            # It is the cause, or at least why the log does not show one.
            fact += f" ({problem})"
        super().__init__(f"{name} {fact}; the end of {log}:{shown or ' (empty)'}")


class CanaryFailed(MeshError):
    """Every process is ready, but no token comes through."""
