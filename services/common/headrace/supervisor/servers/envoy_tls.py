"""Envoy's TLS: what clients see, and what Envoy proves to gateways and control. Pure.

Certificates come from files that Envoy reads when the store exchanges them; nothing is restarted,
and open connections live on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.credentials.tls_files import TlsPaths
from headrace.rpc.identity import server_name, spiffe_id

Json = dict[str, Any]

_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets"
_TLS_1_3 = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
PLAIN: Json = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": f"{_TYPES}.raw_buffer.v3.RawBuffer"},
}
"""The transport socket of a line without TLS."""


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """Certificates of Envoy."""

    folder: Path
    """The directory in which links to certificates are exchanged."""
    public: Sequence[TlsPaths]
    """Of the listener, each for the names that it has; the first also for all other names."""
    inside: TlsPaths
    """That gateways and control know Envoy by."""


def secrets(tls: EdgeTls, folder: Path) -> dict[Path, str]:
    """Return the files in which Envoy finds out where its certificates are."""
    found = {
        _file(folder, f"public_{n}"): _certificate(f"public_{n}", paths, tls.folder)
        for n, paths in enumerate(tls.public)
    }
    found[_file(folder, "inside")] = _certificate("inside", tls.inside, tls.folder)
    found[_file(folder, "authority")] = {
        "name": "authority",
        "validation_context": {
            "trusted_ca": {"filename": str(tls.inside.ca)},
            "watched_directory": {"path": str(tls.folder)},
        },
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return {
        file: json.dumps({"resources": [{"@type": kind, **secret}]})
        for file, secret in found.items()
    }


def listener_socket(tls: EdgeTls, folder: Path) -> Json:
    """Return the transport socket of the public listener: TLS 1.3, HTTP/2 or 1.1."""
    names = [f"public_{n}" for n in range(len(tls.public))]
    context: Json = {
        "@type": f"{_TYPES}.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": _TLS_1_3,
            "tls_certificate_sds_secret_configs": [_source(folder, name) for name in names],
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def upstream_socket(role: str, folder: Path, protocol: str = "h2") -> Json:
    """Return the transport socket to processes of a role, which have to prove the role."""
    name = {
        "san_type": "URI",
        "matcher": {"prefix": spiffe_id(role, "")},
    }
    context: Json = {
        "@type": f"{_TYPES}.tls.v3.UpstreamTlsContext",
        "sni": server_name(role),
        "common_tls_context": {
            "alpn_protocols": [protocol],
            "tls_params": _TLS_1_3,
            "tls_certificate_sds_secret_configs": [_source(folder, "inside")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [name]},
                "validation_context_sds_secret_config": _source(folder, "authority"),
            },
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}_secret.json"


def _source(folder: Path, name: str) -> Json:
    source = {"path_config_source": {"path": str(_file(folder, name))}}
    return {"name": name, "sds_config": {**source, "resource_api_version": "V3"}}


def _certificate(name: str, paths: TlsPaths, folder: Path) -> Json:
    return {
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"filename": str(paths.cert)},
            "private_key": {"filename": str(paths.key)},
            "watched_directory": {"path": str(folder)},
        },
    }
