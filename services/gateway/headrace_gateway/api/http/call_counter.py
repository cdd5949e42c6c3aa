"""Counts calls by how they ended for their callers."""

from __future__ import annotations

from typing import Self

from headrace.errors import HeadraceError
from headrace_gateway.base import metrics


class CallCounter:
    """Counts one call when its `with` is left: as CANCELLED unless `finish` has been called."""

    def __init__(self, api: str, model: str = "") -> None:
        self._api = api
        self.model = model
        """Only the name of a known model: callers must not create labels."""
        self._code = "CANCELLED"

    def finish(self, error: HeadraceError | None = None) -> None:
        self._code = "OK" if error is None else error.code.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        metrics.calls_total.labels(self._api, self.model, self._code).inc()
