"""Envoy's configuration and command line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.servers import assets, local_replies
from headrace.supervisor.servers.local_replies import Timeouts
from headrace.supervisor.servers.rest_paths import read_paths
from headrace.supervisor.state.files import render, write_atomically

_CONSTANTS = (
    f"local MAX_HEADER_BYTES = {local_replies.MAX_HEADER_BYTES}\n"
    f'local COHERE_PATH, TEI_PATH = "{local_replies.COHERE_PATH}", "{local_replies.TEI_PATH}"\n'
)


class Edge:
    """Envoy, with its files in `folder` and its access log in `logs`."""

    role = Role.ENVOY
    name = "envoy"

    def __init__(
        self, folder: Path, logs: Path, *, host: str, port: int, timeouts: Timeouts | None = None
    ) -> None:
        self.config = folder / "envoy.yaml"
        self._folder = folder
        self._admin_address = folder / "admin_address"
        self._gateways: Sequence[tuple[str, int]] = []
        self._endpoints = folder / "endpoints.json"
        self._access_log = logs / "access.log"
        self._host = host
        self._port = port
        self._timeouts = timeouts or Timeouts()

    def prepare(self) -> None:
        self._access_log.parent.mkdir(parents=True, exist_ok=True)
        self._admin_address.unlink(missing_ok=True)
        self._write_endpoints(self._gateways)
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

    def set_gateways(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Send traffic to these gateways; Envoy takes about a second to follow a change."""
        if addresses != self._gateways:
            self._write_endpoints(addresses)
            self._gateways = addresses

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

    def _write_endpoints(self, addresses: Sequence[tuple[str, int]]) -> None:
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
            for host, port in addresses
        ]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "gateway",
            "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        }
        write_atomically(self._endpoints, json.dumps({"resources": [assignment]}))

    def _write_config(self) -> None:
        descriptors = assets.descriptor_set()
        paths = read_paths(descriptors.read_bytes())
        timeouts = asdict(self._timeouts).items()
        values = {
            "admin_port": 0,
            "host": self._host,
            "port": self._port,
            "access_log": str(self._access_log),
            "descriptor_set": str(descriptors),
            "endpoints_file": str(self._endpoints),
            "endpoints_dir": str(self._folder),
            "requests_lua": _CONSTANTS + assets.deploy_text("envoy/requests.lua"),
            "refusals_lua": assets.deploy_text("envoy/refusals.lua"),
            "max_body_bytes": local_replies.MAX_BODY_BYTES,
            "services": list(dict.fromkeys(path.service for path in paths)),
            "local_replies": local_replies.mappers(paths, self._timeouts),
            **{f"{name.removesuffix('_s')}_timeout": f"{s:g}s" for name, s in timeouts},
        }
        write_atomically(self.config, render(assets.deploy_text("envoy/envoy.yaml"), values))


def _listener_port(listeners: dict[str, Any]) -> int | None:
    for status in listeners.get("listener_statuses", ()):
        port = status["local_address"]["socket_address"].get("port_value", 0)
        if status["name"] == "edge" and port:
            return int(port)
    return None
