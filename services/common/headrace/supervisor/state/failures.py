"""How a mesh fails to be.

MeshError
├── InvalidOption           what was asked for cannot be; nothing was started
├── AssetMissing        the installation is not whole
├── PortTaken           somebody listens where the mesh was to listen
├── DiskFull              the state directory's file system takes no files
├── MeshRunning         another mesh has this state directory
├── MeshNotRunning              no mesh has this state directory
├── ModelServed         a model is to be removed that a worker serves
├── ProcessFailed       a process cannot be brought up
└── CanaryFailed          every process is well, and yet no token comes through
"""

from __future__ import annotations

from pathlib import Path

from headrace.supervisor.state.disk import disk_problem
from headrace.supervisor.state.files import last_lines

_SHOWN_LINES = 12


class MeshError(Exception):
    """Base. The text states the fact, and what to do where there is something to do."""


class InvalidOption(MeshError):
    """What was asked for cannot be; nothing was started."""


class AssetMissing(MeshError):
    """The installation is not whole."""


class PortTaken(MeshError):
    """Somebody listens where the mesh was to listen; nothing was started."""


class DiskFull(MeshError):
    """The state directory's file system takes no files; nothing was started."""


class MeshRunning(MeshError):
    """Another supervisor holds this state directory."""


class MeshNotRunning(MeshError):
    """No supervisor holds this state directory."""


class ModelServed(MeshError):
    """A live worker serves the model that is to be removed."""


class ProcessFailed(MeshError):
    """A process cannot be brought up. The text ends with the last lines of its log."""

    def __init__(self, name: str, fact: str, log: Path) -> None:
        lines = last_lines(log, _SHOWN_LINES)
        shown = "".join(f"\n  | {line}" for line in lines)
        if (trouble := disk_problem(log.parent)) is not None:
            # Then it is why, or at least why the log does not say why.
            fact += f" ({trouble})"
        super().__init__(f"{name} {fact}; the end of {log}:{shown or ' (empty)'}")


class CanaryFailed(MeshError):
    """Every process is well, and yet no token comes through."""
