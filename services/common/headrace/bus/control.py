"""Commands to single processes over the bus, from any machine: no signal need be sent to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.bus import Messages, NoResponders, Subscription, subjects
from headrace.internal.v1.operations_pb2 import (
    DrainRequest,
    SetDrainedRequest,
    SetDrainedResponse,
)


@dataclass(frozen=True, slots=True)
class DrainReply:
    drains: bool
    """A process of the name has replied; False: it has ended already."""
    stays_stopped: bool
    """A supervisor does not start it again before `request_undrain`."""


async def serve_drain(
    messages: Messages, name: str, drain: Callable[[float | None], None]
) -> Subscription:
    """Call `drain` whenever a drain of the process of this name is requested.

    Its argument is for how many seconds requests may run on; None: for as long as the settings
    say. The reply is the name; it comes before the process has drained.
    """

    async def answer(payload: bytes) -> bytes:
        request = DrainRequest.FromString(payload)
        drain(request.grace.ToNanoseconds() / 1e9 if request.HasField("grace") else None)
        return name.encode()

    return await messages.serve(subjects.drain(name), answer)


async def request_drain(
    messages: Messages, name: str, *, grace_s: float | None = None, timeout_s: float
) -> DrainReply:
    """Have the process of this name drain; of several of one name, each.

    The supervisor of a worker, if it has one, does not start it again once it has ended, until
    `request_undrain`. A repeated request changes nothing, unless its `grace_s` ends earlier.

    Raises:
        NoResponders: no process of this name is connected.
        NoReply: it did not reply in time.
        BusUnavailable: the broker is away.
    """
    request = DrainRequest()
    if grace_s is not None:
        request.grace.FromNanoseconds(int(grace_s * 1e9))
    # Why first: the worker may end as soon as it is requested to.
    was_drained = await _set_drained(messages, name, True, timeout_s=timeout_s)
    try:
        await messages.request(
            subjects.drain(name), request.SerializeToString(), timeout_s=timeout_s
        )
    except NoResponders:
        if was_drained:
            return DrainReply(drains=False, stays_stopped=True)
        if was_drained is False:
            # It is just being started: then it must come, for it was not requested to drain.
            await _set_drained(messages, name, False, timeout_s=timeout_s)
        raise
    return DrainReply(drains=True, stays_stopped=was_drained is not None)


async def request_undrain(messages: Messages, name: str, *, timeout_s: float) -> bool:
    """Have the supervisor of the worker of this name start it again.

    Returns:
        Whether it was drained.

    Raises:
        NoResponders: no supervisor has a worker of this name.
        NoReply: it did not reply in time.
        BusUnavailable: the broker is away.
    """
    was_drained = await _set_drained(messages, name, False, timeout_s=timeout_s)
    if was_drained is None:
        raise NoResponders(f"no supervisor has a worker named {name}")
    return was_drained


async def serve_drained_mark(
    messages: Messages, name: str, set_drained: Callable[[bool], bool]
) -> Subscription:
    """Call `set_drained` with whether the worker of this name is to stay stopped once it has
    ended; it returns what was set before."""

    async def answer(payload: bytes) -> bytes:
        was_drained = set_drained(SetDrainedRequest.FromString(payload).drained)
        return SetDrainedResponse(was_drained=was_drained).SerializeToString()

    return await messages.serve(subjects.drained_mark(name), answer)


async def _set_drained(
    messages: Messages, name: str, drained: bool, *, timeout_s: float
) -> bool | None:
    """Return what was set before; None if the process has no supervisor that keeps it stopped."""
    request = SetDrainedRequest(drained=drained).SerializeToString()
    try:
        reply = await messages.request(subjects.drained_mark(name), request, timeout_s=timeout_s)
    except NoResponders:
        return None
    return SetDrainedResponse.FromString(reply).was_drained
