"""TLS of gRPC: servers that want a certificate of every client, and channels to them.

Servers give new connections the certificate that their files hold then; open connections live on.
gRPC cannot exchange the certificate of a channel, so channels of the mesh are made anew for each
stream, or each time their connection has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import grpc

from headrace.credentials.tls_files import TlsFiles, TlsMaterial
from headrace.rpc.addresses import is_https
from headrace.rpc.identity import server_name


class Trust(TypedDict):
    """Whom a client of the public port trusts."""

    ca_file: Path | None
    """Authorities, in PEM; None: those of the web."""
    server_name: str
    """What the certificate must have; empty: the host of the URL."""


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


def public_security(url: str, trust: Trust) -> ChannelSecurity | None:
    """Return the security of a channel of a client to this URL; None: it is not https.

    Raises:
        OSError: the authorities cannot be read.
    """
    if not is_https(url):
        return None
    ca, name = trust["ca_file"], trust["server_name"]
    options = (("grpc.ssl_target_name_override", name),) if name else ()
    credentials = grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes())
    return ChannelSecurity(credentials, options)


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
