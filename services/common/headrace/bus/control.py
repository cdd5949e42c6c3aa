"""Orders to single processes over the bus, for those who cannot send them a signal."""

from __future__ import annotations

from collections.abc import Callable

from headrace.bus import Messages, Subscription, subjects


async def serve_drain(messages: Messages, name: str, drain: Callable[[], None]) -> Subscription:
    """Have `drain` called for each order to the process of this name: as at SIGTERM.

    Answers with the name once the order is taken, not once the process has left.
    """

    async def answer(_: bytes) -> bytes:
        drain()
        return name.encode()

    return await messages.serve(subjects.drain(name), answer)


async def request_drain(messages: Messages, name: str, *, timeout_s: float) -> None:
    """
    Raises:
        NoResponders: no process of this name is connected.
        NoReply: it did not answer in time.
        BusUnavailable: the broker is away.
    """
    await messages.request(subjects.drain(name), b"", timeout_s=timeout_s)
