"""gRPC channels to our own processes: the one place where such channels are made.

None of them goes through a proxy, whatever `http_proxy`, `https_proxy`, `grpc_proxy` and their
like say: gRPC would send every call to the proxy, which knows neither our loopback nor our pods.
Engines that are clients of a server elsewhere have their own connections, and may use a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from headrace.rpc.server import MAX_MESSAGE_BYTES

Options = Sequence[tuple[str, int]]

_OPTIONS: Options = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
MESH_PINGS: Options = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Why beside the other: by itself that one closes nothing; this one's default is a minute.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Between our own processes: a frozen or vanished peer is noticed within 4 s."""
CLIENT_PINGS: Options = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""For callers: proxies cut connections that are silent, and a stream may be for as long as a step
takes."""


def aio_channel(target: str, *, pings: Options = ()) -> grpc.aio.Channel:
    """A channel for the event loop.

    Args:
        target: `host:port`, as `headrace.rpc.addresses.join` writes it.
        pings: `MESH_PINGS`, `CLIENT_PINGS`, or none.
    """
    return grpc.aio.insecure_channel(target, options=(*_OPTIONS, *pings))


def blocking_channel(target: str, *, pings: Options = ()) -> grpc.Channel:
    """A channel for threads; the arguments are those of `aio_channel`."""
    return grpc.insecure_channel(target, options=(*_OPTIONS, *pings))
