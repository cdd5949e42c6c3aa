"""The progress of loading a model: a few log lines, and a phrase for /readyz."""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace_worker.engine.base.loaded_model import LoadStage

log = logging.getLogger(__name__)

LOG_EVERY_S = 3.0
"""A shorter load logs only its start and its end."""


class LoadAbandoned(Exception):
    """The load was abandoned."""


class LoadProgress:
    """Updated by the thread that loads, read by any.

    Args:
        source: what is loaded, for the log.
        now_s: monotonic.
    """

    def __init__(self, source: str, now_s: Callable[[], float]) -> None:
        self._source, self._now_s = source, now_s
        self._began_s = self._logged_s = now_s()
        self._abandoned = False
        self.fact = "loading"
        """A few words, as in `reading weights 42 %`."""
        log.info("model.loading", extra={"source": source})

    def report(self, stage: LoadStage, done: int, total: int) -> None:
        """`done` of `total`, in what the stage counts; a total of 0 is not known yet.

        Raises:
            LoadAbandoned: to the thread that loads; after `abandon`.
        """
        if self._abandoned:
            raise LoadAbandoned
        percent = 100 * done // total if total else 0
        self.fact = f"{stage.value} {percent} %"
        if self._now_s() - self._logged_s < LOG_EVERY_S:
            return
        self._logged_s = self._now_s()
        facts = {"source": self._source, "stage": stage.value, "percent": percent}
        log.info(
            "model.loading",
            extra={**facts, f"done_{stage.unit}": done, f"total_{stage.unit}": total},
        )

    def abandon(self) -> None:
        """End the load at its next report: a process that should end waits for its threads."""
        self._abandoned = True

    def done(self, parameters: int) -> None:
        took_s = round(self._now_s() - self._began_s, 3)
        extra = {"source": self._source, "parameters": parameters, "took_s": took_s}
        log.info("model.loaded", extra=extra)
