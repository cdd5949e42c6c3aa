"""Commands to single processes over the bus, where no signal can be sent to them."""

from __future__ import annotations

from collections.abc import Callable

from headrace.bus import Messages, Subscription, subjects


async def serve_drain(messages: Messages, name: str, drain: Callable[[], None]) -> Subscription:
    """Call `drain`, as SIGTERM does, whenever a drain of the process of this name is requested.

    The reply is the name; it comes before the process has drained.
    """

    async def answer(_: bytes) -> bytes:
        drain()
        return name.encode()

    return await messages.serve(subjects.drain(name), answer)


async def request_drain(messages: Messages, name: str, *, timeout_s: float) -> None:
    """Have the process of this name drain.

    Raises:
        NoResponders: no process of this name is connected.
        NoReply: it did not reply in time.
        BusUnavailable: the broker is away.
    """
    await messages.request(subjects.drain(name), b"", timeout_s=timeout_s)
