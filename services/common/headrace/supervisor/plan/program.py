"""Programs that a mesh runs: their command lines, and the ports that they listen on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from headrace.supervisor.plan.mesh_options import LOOPBACK, Role, ServicePlan
from headrace.supervisor.state.files import read_json_object


class Program(Protocol):
    """A program that is started again whenever it ends."""

    @property
    def role(self) -> Role: ...

    @property
    def name(self) -> str:
        """Unique in the mesh."""
        ...

    def prepare(self) -> None:
        """Write the program's files and remove its last ports; called before each start."""
        ...

    def argv(self) -> Sequence[str]: ...

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        """Return the ports of the run with this pid, by name; None while it does not listen."""
        ...


class Service:
    """A Python process of the mesh."""

    def __init__(
        self, plan: ServicePlan, *, nats_url: str, ports_file: Path, more_flags: Sequence[str] = ()
    ) -> None:
        self.role, self.name = plan.role, plan.name
        # Those of the plan last: they may be settings of the user, which count.
        self._flags = (*more_flags, *plan.flags)
        self._nats_url = nats_url
        self._ports_file = ports_file

    def prepare(self) -> None:
        self._ports_file.parent.mkdir(parents=True, exist_ok=True)
        self._ports_file.unlink(missing_ok=True)

    def argv(self) -> Sequence[str]:
        # -P: Python must not import a headrace_worker.py of the current directory.
        # Why not the environment: variables that the user has exported must stay in force.
        return (
            *(sys.executable, "-P", "-m", f"headrace_{self.role}", *self._flags),
            *("--nats-url", self._nats_url, "--host", LOOPBACK),
            *("--ports-file", str(self._ports_file)),
        )

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        return read_json_object(self._ports_file)
