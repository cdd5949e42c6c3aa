"""nats-server's configuration and command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.credentials.tls_files import TlsPaths
from headrace.extras import require_binary
from headrace.rpc.addresses import split_host_port
from headrace.supervisor.plan.mesh_options import DEFAULT_SYNC_INTERVAL, Role
from headrace.supervisor.servers import assets
from headrace.supervisor.servers.nats_permissions import BrokerUser, authorization
from headrace.supervisor.state.files import (
    SECRET_MODE,
    read_json_object,
    render,
    write_atomically,
)


class Broker:
    """nats-server with its store in `folder`, on a free port of the loopback.

    Args:
        passwords: of the users; none: whoever reaches the port may do everything.
        tls: its certificate, and the authority that all who connect must be signed by; read again
            at SIGHUP.
    """

    role = Role.NATS
    name = "nats"

    def __init__(
        self,
        folder: Path,
        *,
        sync_interval: str = DEFAULT_SYNC_INTERVAL,
        passwords: Mapping[BrokerUser, str] | None = None,
        tls: TlsPaths | None = None,
    ) -> None:
        self.config = folder / "nats.conf"
        self._folder = folder
        self._ports_dir = folder / "ports"
        self._sync_interval = sync_interval
        self._passwords, self._tls = passwords or {}, tls
        self._port = -1

    @property
    def url(self) -> str:
        """Valid once `read_ports` has found the ports; it does not change afterwards."""
        return f"nats://127.0.0.1:{self._port}"

    def prepare(self) -> None:
        self._ports_dir.mkdir(parents=True, exist_ok=True)
        for stale in self._ports_dir.glob("*.ports"):
            stale.unlink(missing_ok=True)
        values = {
            "server_name": "headrace",
            "listen": f"127.0.0.1:{self._port}",
            "ports_dir": str(self._ports_dir),
            "store_dir": str(self._folder),
            "sync_interval": self._sync_interval,
            "authorization": authorization(self._passwords) if self._passwords else {},
        }
        text = render(assets.deploy_text("nats/nats.conf"), values)
        if self._tls is not None:
            # Why not in the template: there is no value of it that means no TLS.
            text += f"tls: {json.dumps(_tls(self._tls))}\n"
        # It has the passwords.
        write_atomically(self.config, text, mode=SECRET_MODE)

    def argv(self) -> tuple[str, ...]:
        return (require_binary("mesh", "nats-server"), "-c", str(self.config))

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        """Return `nats` and `http`; None while nats-server does not listen.

        Later runs use the same `nats`, so that clients can reconnect.
        """
        found = read_json_object(self._ports_dir / f"nats-server_{pid}.ports")
        if found is None:
            return None
        self._port = split_host_port(found["nats"][0])[1]
        return {"nats": self._port, "http": split_host_port(found["monitoring"][0])[1]}


def _tls(paths: TlsPaths) -> dict[str, Any]:
    return {
        "cert_file": str(paths.cert),
        "key_file": str(paths.key),
        "ca_file": str(paths.ca),
        "verify": True,
        "min_version": "1.3",
        # Of a handshake; the default of 2 s is short for a busy machine.
        "timeout": 5,
    }
