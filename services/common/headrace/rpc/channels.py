"""gRPC channels to the mesh's processes. All such channels are made here.

None of them uses a proxy, whatever `http_proxy`, `https_proxy` and `grpc_proxy` say: a proxy
reaches neither the loopback nor the pods of the mesh. Engines that are clients of a server
elsewhere have their own connections, and may use a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from headrace.rpc.tls import ChannelSecurity

MAX_MESSAGE_BYTES = 20 * 1024 * 1024
"""Above Envoy's body limit of 16 MiB, so that the limit is Envoy's, which answers 413."""

Options = Sequence[tuple[str, int]]

_OPTIONS: Options = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
MESH_PINGS: Options = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Why this one too: the other closes nothing by itself, and this one's default is a minute.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Between processes of the mesh: a peer that hangs or vanishes is noticed within 4 s."""
CLIENT_PINGS: Options = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""For clients: proxies cut silent connections, and a stream may be silent for a long step."""


def aio_channel(
    target: str,
    *,
    pings: Options = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    security: ChannelSecurity | None = None,
) -> grpc.aio.Channel:
    """Return a channel for the event loop.

    Args:
        target: `host:port`, as `headrace.rpc.addresses.join_host_port` returns it.
        pings: `MESH_PINGS`, `CLIENT_PINGS`, or none.
        interceptors: of its calls.
        security: of `headrace.rpc.tls`; None: plain text.
    """
    options: tuple[tuple[str, str | int], ...] = (*_OPTIONS, *pings)
    if security is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    options = (*options, *security.options)
    return grpc.aio.secure_channel(target, security.credentials, options, None, interceptors)


def blocking_channel(
    target: str, *, pings: Options = (), security: ChannelSecurity | None = None
) -> grpc.Channel:
    """Return a channel for threads; the arguments are those of `aio_channel`."""
    options = (*_OPTIONS, *pings)
    if security is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, security.credentials, (*options, *security.options))
