"""Logs as JSON lines on stdout: the name of an event, and its facts as fields.

    log.info("batch.dispatched", extra={"batch_id": 7, "requests": 8, "waited_s": 0.018})

There is a line for each change of state, none for a token, and never a prompt or an output.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A JSON object for each record: time, level, service, name, event, then its facts."""

    def __init__(self, service: str, name: str) -> None:
        super().__init__()
        self._origin = {"service": service, "name": name}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._origin,
            "event": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Stdout(logging.Handler):
    """Writes to standard output, which may be a file on a full disk.

    Lines that cannot be written are counted, and the count is logged as soon as one can be.
    """

    def __init__(self, origin: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(origin)
        self._lost = 0
        self._is_torn = False
        """Whether the last line was written in part."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError, KeyError):  # a wrong argument of the record
            self.handleError(record)
            return
        if self._lost and self._write(self.format(_lost_lines(self._lost))):
            self._lost = 0
        if self._lost or not self._write(line):
            self._lost += 1

    def _write(self, line: str) -> bool:
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._is_torn:
            data = b"\n" + data
        try:
            written = os.write(1, data)
        except OSError:
            return False
        self._is_torn = written < len(data)
        return not self._is_torn


def _lost_lines(count: int) -> logging.LogRecord:
    record = logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING"})
    record.msg, record.lines = "log.lines_lost", count
    return record


def configure(*, service: str, name: str, level: str) -> None:
    """Write all logs of this process to stdout as JSON lines."""
    out = _Stdout(JsonLines(service, name))
    logging.basicConfig(level=level.upper(), handlers=[out], force=True)
    # Why: it logs a line for each failed reconnect; the bus logs the change of state.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
