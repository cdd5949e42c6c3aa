"""gRPC servers with the limits and the health service of all services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.credentials.tls_files import TlsFiles
from headrace.rpc.addresses import join_host_port
from headrace.rpc.channels import MAX_MESSAGE_BYTES
from headrace.rpc.roles import RequireRole, Roles
from headrace.rpc.tls import server_credentials

MAX_METADATA_BYTES = 256 * 1024
"""Above Envoy's limit of headers, so that the limit is Envoy's, which answers 431. Envoy's 60 KiB
may be a path, which it sends twice, or many headers, each of which counts 32 bytes more."""

_OPTIONS = (
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # Why both: between the two limits gRPC rejects calls at random.
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Why: two processes on one port would share its connections, and the mistake would not show.
    ("grpc.so_reuseport", 0),
    # Why: a default server closes connections whose peer pings every two seconds.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


def make_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    *,
    tls: TlsFiles | None = None,
    roles: Roles | None = None,
    window_bytes: int | None = None,
) -> grpc.aio.Server:
    """Return a server; with `tls`, `roles` says which processes of the mesh may call it.

    Args:
        window_bytes: how much of each stream is read ahead of its handler. None: as much as the
            connection carries meanwhile, which grows to tens of MiB.
    """
    required = [] if tls is None else [RequireRole(roles or {})]
    window: tuple[tuple[str, int], ...] = ()
    if window_bytes is not None:
        window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", window_bytes))
    return grpc.aio.server(options=(*_OPTIONS, *window), interceptors=[*required, *interceptors])


def add_health_and_reflection(
    server: grpc.aio.Server, service_names: Iterable[str]
) -> health.aio.HealthServicer:
    """Serve grpc.health.v1 and reflection; every service, and "", is NOT_SERVING at first."""
    names = tuple(service_names)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return servicer


async def set_serving(
    servicer: health.aio.HealthServicer, service_names: Iterable[str], *, serving: bool
) -> None:
    """Set the health of the services and of the server as a whole."""
    status = health_pb2.HealthCheckResponse
    for name in ("", *service_names):
        await servicer.set(name, status.SERVING if serving else status.NOT_SERVING)


def bind(server: grpc.aio.Server, host: str, port: int, tls: TlsFiles | None = None) -> int:
    """Listen; return the port. With `tls`, only for clients with a certificate of the mesh.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    address = join_host_port(host, port)
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if bound == 0:
        raise OSError(f"cannot listen on {address}")
    return bound
