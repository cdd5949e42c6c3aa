"""Whether the broker stores what it is given, tried by storing."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from headrace.bus import BusUnavailable, StoreRefused, subjects
from headrace.bus.jetstream.connection import Connected
from headrace.cancellation import rechecking_cancelled

TRIAL_STREAM = "TRIALS"


class StoreTrial(Connected):
    """Implements `headrace.bus.Trial`."""

    _has_stream = False

    @rechecking_cancelled
    async def try_to_store(self, *, timeout_s: float) -> None:
        impatient = self._client.jetstream(timeout=timeout_s)
        try:
            if not self._has_stream:
                await impatient.add_stream(_stream())
                self._has_stream = True
            await impatient.publish(subjects.TRIALS, b"")
        except nats.js.errors.NoStreamResponseError as error:
            self._has_stream = False
            raise BusUnavailable("JetStream does not answer: is it enabled?") from error
        except nats.js.errors.APIError as error:
            raise StoreRefused(error.description or str(error)) from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BusUnavailable(f"a trial was not stored in {timeout_s:g} s") from error


def _stream() -> StreamConfig:
    return StreamConfig(
        name=TRIAL_STREAM,
        subjects=[subjects.TRIALS],
        storage=StorageType.FILE,
        max_msgs=1,
        discard=DiscardPolicy.OLD,
    )
