"""Envoy's configuration and command line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from headrace.credentials.loopback import is_loopback
from headrace.supervisor.plan.mesh_options import LOOPBACK, Role
from headrace.supervisor.servers import assets, envoy_tls, local_replies
from headrace.supervisor.servers.envoy_tls import EdgeTls
from headrace.supervisor.servers.local_replies import CONTROL, GATEWAY, WEB, Json, Timeouts
from headrace.supervisor.servers.rest_paths import read_paths
from headrace.supervisor.state.files import SECRET_MODE, render, write_atomically

_TEI_PATHS = ", ".join(f"[{json.dumps(path)}] = true" for path in local_replies.TEI_PATHS)
_CONSTANTS = (
    f"local MAX_HEADER_BYTES = {local_replies.MAX_HEADER_BYTES}\n"
    f"local MAX_ADMIN_BODY_BYTES = {local_replies.MAX_ADMIN_BODY_BYTES}\n"
    f'local ADMIN_PREFIX = "{local_replies.ADMIN_PREFIX}"\n'
    f'local FILES_PATH = "{local_replies.FILES_PATH}"\n'
    f'local ANTHROPIC_PREFIX = "{local_replies.ANTHROPIC_PREFIX}"\n'
    f'local ANTHROPIC_HEADER = "{local_replies.ANTHROPIC_HEADER}"\n'
    f'local COHERE_PATH = "{local_replies.COHERE_PATH}"\n'
    f"local TEI_PATHS = {{{_TEI_PATHS}}}\n"
)


_LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"
_Addresses = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """How the public listener treats its clients."""

    host: str = LOOPBACK
    port: int = 0
    """0 picks a free one."""
    trusted_proxies: int = 0
    """Proxies in front of Envoy whose X-Forwarded-For is believed."""
    allowed_origins: tuple[str, ...] = ()
    """Of pages in browsers, as `https://app.example.com`. On a listener that only this machine
    reaches, its own pages are allowed as well."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: EdgeTls | None = None
    """None: clients and the mesh are reached in plain text."""

    @property
    def origin_matchers(self) -> list[Json]:
        """Return Envoy's matchers of the allowed origins."""
        allowed: list[Json] = [{"exact": origin} for origin in self.allowed_origins]
        if is_loopback(self.host):
            allowed.append({"safe_regex": {"regex": _LOCAL_ORIGINS}})
        return allowed


class Edge:
    """Envoy, with its files in `folder` and its access log in `logs`.

    Args:
        proof: a secret that proves to services that a request came through this Envoy; empty: they
            cannot know, and believe nothing that it says of the client.
    """

    role = Role.ENVOY
    name = "envoy"

    def __init__(self, folder: Path, logs: Path, options: EdgeOptions, *, proof: str = "") -> None:
        self.config = folder / "envoy.yaml"
        self._folder = folder
        self._admin_address = folder / "admin_address"
        self._endpoints: dict[str, _Addresses] = {GATEWAY: (), CONTROL: (), WEB: ()}
        self._access_log = logs / "access.log"
        self._options = options
        self._port = options.port
        self._proof = proof

    def prepare(self) -> None:
        self._access_log.parent.mkdir(parents=True, exist_ok=True)
        self._admin_address.unlink(missing_ok=True)
        for cluster, addresses in self._endpoints.items():
            self._write_endpoints(cluster, addresses)
        if self._options.tls is not None:
            for file, text in envoy_tls.secrets(self._options.tls, self._folder).items():
                write_atomically(file, text)
        self._write_config()

    def argv(self) -> tuple[str, ...]:
        # Why few threads: one of them carries tens of thousands of tokens/s.
        concurrency = max(1, (os.cpu_count() or 1) // 8)
        return (
            *(str(assets.envoy_binary()), "-c", str(self.config), "--log-level", "warning"),
            *("--admin-address-path", str(self._admin_address)),
            *("--concurrency", str(concurrency), "--disable-hot-restart"),
            # Why: after the default of 10 s the access log seems to lack what just happened.
            *("--file-flush-interval-msec", "1000"),
        )

    def set_gateways(self, addresses: _Addresses) -> None:
        """Send traffic to these gateways; Envoy takes about a second to follow a change."""
        self._set_endpoints(GATEWAY, addresses)

    def set_controls(self, addresses: _Addresses) -> None:
        """Send calls of the administration to these processes of control."""
        self._set_endpoints(CONTROL, addresses)

    def set_webs(self, addresses: _Addresses) -> None:
        """Send calls of the page to these processes of web."""
        self._set_endpoints(WEB, addresses)

    def _set_endpoints(self, cluster: str, addresses: _Addresses) -> None:
        if addresses != self._endpoints[cluster]:
            self._write_endpoints(cluster, addresses)
            self._endpoints[cluster] = addresses

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        """Return `http` and `admin`; None while Envoy does not listen.

        Later runs use the same `http`.
        """
        try:
            admin = self._admin_address.read_text(encoding="utf-8").strip()
            async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
                answer = await http.get(f"http://{admin}/listeners?format=json")
                answer.raise_for_status()
        except (OSError, httpx.HTTPError):
            return None
        port = _listener_port(answer.json())
        if port is None:
            return None
        self._port = port
        return {"http": port, "admin": int(admin.rpartition(":")[2])}

    def _endpoints_file(self, cluster: str) -> Path:
        return self._folder / f"{cluster}_endpoints.json"

    def _write_endpoints(self, cluster: str, addresses: _Addresses) -> None:
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
            for host, port in addresses
        ]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": cluster,
            "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        }
        write_atomically(self._endpoints_file(cluster), json.dumps({"resources": [assignment]}))

    def _write_config(self) -> None:
        text = render(assets.deploy_text("envoy/envoy.yaml"), self._values())
        # It has the proof.
        write_atomically(self.config, text, mode=SECRET_MODE)

    def _values(self) -> dict[str, object]:
        """Return what the template's names stand for."""
        descriptors = assets.descriptor_set()
        paths = read_paths(descriptors.read_bytes())
        timeouts = self._options.timeouts
        return {
            "admin_port": 0,
            "host": self._options.host,
            "port": self._port,
            "trusted_proxies": self._options.trusted_proxies,
            "allowed_origins": self._options.origin_matchers,
            "proven_headers": self._proven_headers(),
            **self._transport_sockets(),
            "access_log": str(self._access_log),
            "descriptor_set": str(descriptors),
            "gateways_file": str(self._endpoints_file(GATEWAY)),
            "controls_file": str(self._endpoints_file(CONTROL)),
            "webs_file": str(self._endpoints_file(WEB)),
            "endpoints_dir": str(self._folder),
            "requests_lua": _CONSTANTS
            + self._lua_constants()
            + assets.deploy_text("envoy/requests.lua"),
            "refusals_lua": assets.deploy_text("envoy/refusals.lua"),
            "max_body_bytes": local_replies.MAX_BODY_BYTES,
            "control_calls": local_replies.CONTROL_CALLS,
            "services": list(dict.fromkeys(path.service for path in paths)),
            "local_replies": local_replies.mappers(paths, timeouts),
            **{
                f"{name.removesuffix('_s')}_timeout": f"{s:g}s"
                for name, s in asdict(timeouts).items()
            },
        }

    def _transport_sockets(self) -> dict[str, Json]:
        tls, folder = self._options.tls, self._folder
        roles = (GATEWAY, CONTROL, WEB)
        names = ("listener_socket", *(f"{role}_socket" for role in roles))
        if tls is None:
            return dict.fromkeys(names, envoy_tls.PLAIN)
        upstream = (
            envoy_tls.upstream_socket(role, folder, "http/1.1" if role == WEB else "h2")
            for role in roles
        )
        sockets = (envoy_tls.listener_socket(tls, folder), *upstream)
        return dict(zip(names, sockets, strict=True))

    def _lua_constants(self) -> str:
        options = self._options
        is_local = is_loopback(options.host)
        # Why: without keys everybody who reaches the port is an operator, and a name that leads to
        # the loopback may be anybody's. A trusted proxy knows its own names.
        only_local_hosts = is_local and not self._proof and not options.trusted_proxies
        origins = ", ".join(f"[{json.dumps(each)}] = true" for each in options.allowed_origins)
        return (
            f"local ALLOWED_ORIGINS = {{{origins}}}\n"
            f"local LOCAL_ORIGINS = {json.dumps(is_local)}\n"
            f"local ONLY_LOCAL_HOSTS = {json.dumps(only_local_hosts)}\n"
        )

    def _proven_headers(self) -> list[Json]:
        """Return what every request gets, whatever its client has sent under these names."""
        values = {"x-hr-client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
        if self._proof:
            values["x-hr-edge"] = self._proof
        return [
            {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for name, value in values.items()
        ]


def _listener_port(listeners: dict[str, Any]) -> int | None:
    for status in listeners.get("listener_statuses", ()):
        port = status["local_address"]["socket_address"].get("port_value", 0)
        if status["name"] == "edge" and port:
            return int(port)
    return None
