"""Whether the broker can store a message, tried by storing one."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from headrace.bus import BusUnavailable, StoreRefused, subjects
from headrace.bus.jetstream.connection import Connected
from headrace.bus.stores import PROBE_STREAM
from headrace.cancellation import rechecking_cancelled


class JetStreamProbe(Connected):
    """Implements `headrace.bus.StoreProbe`."""

    _has_stream = False

    @rechecking_cancelled
    async def probe_store(self, *, timeout_s: float) -> None:
        js = self._client.jetstream(timeout=timeout_s)
        try:
            if not self._has_stream:
                await js.add_stream(_stream())
                self._has_stream = True
            await js.publish(subjects.STORE_PROBES, b"")
        except nats.js.errors.NoStreamResponseError as error:
            self._has_stream = False
            raise BusUnavailable("JetStream does not answer: is it enabled?") from error
        except nats.js.errors.APIError as error:
            raise StoreRefused(error.description or str(error)) from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BusUnavailable(f"a test message was not stored in {timeout_s:g} s") from error


def _stream() -> StreamConfig:
    return StreamConfig(
        name=PROBE_STREAM,
        subjects=[subjects.STORE_PROBES],
        storage=StorageType.FILE,
        max_msgs=1,
        discard=DiscardPolicy.OLD,
    )
