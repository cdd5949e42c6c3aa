"""Kill a process once its clients have read enough, so that it is never too late."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from headrace.supervisor.state.state_dir import ProcessRecord
from helpers.fresh_mesh import FreshMesh

_LOST = "headrace_gateway_lost_total"


class Strike:
    """A context manager: inside, SIGKILL for the victim once more than `after` streams have begun.

    Where `after` is as many as one of two workers has slots for, both hold some by then. On exit
    the victim must have been killed, and if it is a worker, with running requests unless
    `may_miss`; it is back.
    """

    def __init__(self, mesh: FreshMesh, victim: str, *, after: int, may_miss: bool = False) -> None:
        self._mesh, self._victim, self._after = mesh, victim, after
        self._may_miss = may_miss
        self.has_hit = False
        """On exit: whether the victim, a worker, had running requests."""
        self._begun: set[int] = set()
        self._struck: ProcessRecord | None = None
        self._lost_before = 0.0

    def begun(self, stream: int) -> None:
        """A client has seen some of this stream's output."""
        self._begun.add(stream)
        if self._struck is None and len(self._begun) > self._after:
            self._struck = self._mesh.strike(self._victim)

    async def __aenter__(self) -> Self:
        self._lost_before = await self._mesh.counted("gateway-0", _LOST)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        assert self._struck is not None, f"only {len(self._begun)} streams have begun"
        if self._victim.startswith("worker"):
            self.has_hit = await self._mesh.counted("gateway-0", _LOST) > self._lost_before
            assert self.has_hit or self._may_miss
        await self._mesh.back(self._struck)
