"""The encryption of a mesh of one machine: its certificates, and their renewal under way."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from headrace.credentials.tls_files import TlsFiles, TlsPaths
from headrace.extras import require
from headrace.rpc.addresses import UNSPECIFIED, without_zone
from headrace.rpc.identity import PUBLIC
from headrace.supervisor.plan.mesh_options import MeshOptions, Role
from headrace.supervisor.servers.envoy_tls import EdgeTls
from headrace.supervisor.servers.tls_store import GIVEN, OPERATOR, TlsStore
from headrace.supervisor.state.failures import InvalidOption

_LOOK_S = 1.0
"""How soon after its certificate has changed the broker is told, and a given one is taken."""
_RENEW_EVERY_S = 60.0


class Encryption:
    """The certificates of a mesh with `--tls`, in `folder`."""

    def __init__(self, folder: Path, options: MeshOptions) -> None:
        self.store = TlsStore(folder)
        self._options = options
        self._broker_seen: bytes | None = None

    @property
    def broker(self) -> TlsPaths:
        return self.store.paths(Role.NATS)

    @property
    def edge(self) -> EdgeTls:
        # The given one first: it is also for clients that ask for no name.
        public = (PUBLIC,) if self._options.tls_cert is None else (GIVEN, PUBLIC)
        listener = tuple(map(self.store.paths, public))
        return EdgeTls(self.store.folder, listener, self.store.paths(Role.ENVOY))

    def prepare(self) -> None:
        """Make or renew what is needed to start.

        Raises:
            InvalidOption: the given certificate cannot be used.
        """
        self.store.prepare(datetime.now(UTC), _public_hosts(self._options))
        self._take_given()
        self._broker_seen = self._broker_certificate()

    def flags(self, role: Role) -> tuple[str, ...]:
        """Return what a service of this role is started with."""
        paths = self.store.paths(role)
        return (
            f"--tls-ca-file={paths.ca}",
            f"--tls-cert-file={paths.cert}",
            f"--tls-key-file={paths.key}",
        )

    def operator(self) -> TlsFiles:
        """Return what the supervisor proves itself with."""
        return TlsFiles(self.store.paths(OPERATOR))

    async def keep(
        self, report: Callable[[str, str], None], on_broker_changed: Callable[[], None]
    ) -> None:
        """Renew certificates in time, until cancelled.

        Args:
            on_broker_changed: called when nats-server has to read its certificate again.
        """
        renewed_s, problem = time.monotonic(), ""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if self._take_given():
                    report("mesh", f"has taken {self._options.tls_cert}, which has changed")
                if time.monotonic() - renewed_s >= _RENEW_EVERY_S:
                    renewed_s = time.monotonic()
                    if renewed := self.store.renew(datetime.now(UTC)):
                        report("mesh", f"has renewed the certificates of {', '.join(renewed)}")
                if (now := self._broker_certificate()) != self._broker_seen:
                    self._broker_seen = now
                    on_broker_changed()
                problem = ""
            except (InvalidOption, OSError) as error:
                # Why not raised: what is in use is still valid, and a full disk has an end.
                if str(error) != problem:
                    problem = str(error)
                    report("mesh", f"certificates are not renewed: {error}")

    def _take_given(self) -> bool:
        cert, key = self._options.tls_cert, self._options.tls_key
        return cert is not None and key is not None and self.store.take(cert, key)

    def _broker_certificate(self) -> bytes:
        paths = self.broker
        return paths.ca.read_bytes() + paths.cert.read_bytes()


def _public_hosts(options: MeshOptions) -> list[str]:
    """Return the names and addresses that clients reach the listener at."""
    if options.host not in UNSPECIFIED:
        return [*options.tls_names, options.host]
    return [*options.tls_names, *_own_addresses(options.host), socket.gethostname()]


def _own_addresses(host: str) -> Iterator[str]:
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    for addresses in require("mesh", "psutil").net_if_addrs().values():
        for each in addresses:
            if each.family == family and "%" not in each.address:
                yield without_zone(each.address)
