"""Logs as JSON lines on stdout: an event name, and facts as fields.

    log.info("batch.dispatched", extra={"batch_id": 7, "requests": 8, "waited_s": 0.018})

One line per change of state, none per token; never a prompt or an output.
"""

from __future__ import annotations

import json
import logging
import sys
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


def configure(*, service: str, name: str, level: str) -> None:
    """Send all logging of this process to stdout as JSON lines."""
    out = logging.StreamHandler(sys.stdout)
    out.setFormatter(JsonLines(service, name))
    logging.basicConfig(level=level.upper(), handlers=[out], force=True)
    # Each failed reconnect would be a line of its own; the bus logs the change of state.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
