"""TLS of gRPC: servers that want a certificate of every client, and channels to them.

Servers give new connections the certificate that their files hold then; open connections live on.
gRPC cannot exchange the certificate of a channel, so channels of the mesh are made anew for each
stream, or each time their connection has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from headrace.credentials.tls_files import TlsFiles, TlsMaterial
from headrace.rpc.identity import server_name


@dataclass(frozen=True, slots=True)
class ChannelSecurity:
    """What a channel proves itself with, and what it expects of the server."""

    credentials: grpc.ChannelCredentials
    options: tuple[tuple[str, str], ...] = ()


def mesh_security(files: TlsFiles | None, role: str) -> ChannelSecurity | None:
    """Return the security of a channel to a process of the role; None: the mesh has no TLS.

    The server is checked by its role in place of its address.
    """
    if files is None:
        return None
    now = files.current
    credentials = grpc.ssl_channel_credentials(now.ca, now.key, now.cert)
    return ChannelSecurity(credentials, (("grpc.ssl_target_name_override", server_name(role)),))


def public_security(ca: bytes | None, name: str = "") -> ChannelSecurity:
    """Return the security of a channel of a client to the mesh's public port.

    Args:
        ca: authorities to trust, in PEM; None: those that gRPC brings.
        name: what the server's certificate must have; empty: the host that is connected to.
    """
    options = (("grpc.ssl_target_name_override", name),) if name else ()
    return ChannelSecurity(grpc.ssl_channel_credentials(ca), options)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that want a certificate of each client, signed by the authority."""
    given = files.current

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # Called for each new connection, on a thread of gRPC.
        nonlocal given
        now = files.current
        if now is given:
            return None
        given = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # None: it is as before
        require_client_authentication=True,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.cert)], root_certificates=material.ca
    )
