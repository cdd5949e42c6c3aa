"""Counts calls by how they ended for their callers."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError
from headrace_gateway.base import metrics


class CallCounter:
    """One call, counted when its `with` is left: CANCELLED unless its caller was told an end."""

    def __init__(self, door: str, model: str = "") -> None:
        self._door = door
        self.model = model
        """Only a name that is known: callers must not make labels."""
        self._code = "CANCELLED"

    def finish(self, error: HeadraceError | None = None) -> None:
        self._code = "OK" if error is None else error.code.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        metrics.calls_total.labels(self._door, self.model, self._code).inc()
