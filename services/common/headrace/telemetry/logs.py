"""Logs as JSON lines on stdout: an event name, and facts as fields.

    log.info("batch.dispatched", extra={"batch_id": 7, "requests": 8, "waited_s": 0.018})

One line per change of state, none per token; never a prompt or an output.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object per record: time, level, service, name, event, then its facts."""

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
    """Writes to standard output, which may be a file on a disk that is full: what cannot be written
    is counted, the count is told as soon as something can be, and the process lives on."""

    def __init__(self, origin: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(origin)
        self._lost = 0
        self._is_torn = False
        """The last line was written in part."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError, KeyError):  # as of "%d" with a word
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
    """Send all logging of this process to stdout as JSON lines."""
    out = _Stdout(JsonLines(service, name))
    logging.basicConfig(level=level.upper(), handlers=[out], force=True)
    # Each failed reconnect would be a line of its own; the bus logs the change of state.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
