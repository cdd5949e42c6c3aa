"""Who may use a mesh, and what its own processes prove themselves with."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from headrace.bus import Bus, BusUnavailable, connect
from headrace.credentials.tls_files import InvalidTls, TlsPaths
from headrace.extras import require
from headrace.rpc.identity import PUBLIC, server_name
from headrace.supervisor.plan.mesh_options import Auth, MeshOptions, Role
from headrace.supervisor.servers.envoy import EdgeOptions
from headrace.supervisor.servers.nats_permissions import BrokerUser
from headrace.supervisor.state.state_dir import StateDir

if TYPE_CHECKING:
    from headrace.supervisor.servers.encryption import Encryption

_ANSWER_CALLERS = (Role.GATEWAY, Role.CONTROL, Role.WEB)
_DELIVER = (Role.GATEWAY, Role.WORKER, Role.CONTROL, Role.WEB)


class MeshAccess:
    """The secrets of a mesh whose callers need keys, and the certificates of one with TLS.

    Where keys are required, the broker has users as well: who could publish to it could do without
    a key.
    """

    def __init__(self, options: MeshOptions, state_dir: StateDir) -> None:
        """Make the secrets and certificates that are missing.

        Raises:
            OSError: they cannot be written.
            InvalidOption: the given certificate cannot be used.
        """
        self._options = options
        self.needs_keys = options.auth is Auth.KEYS
        self.encryption = _encryption(options, state_dir) if options.has_tls else None
        self.scheme = "http" if self.encryption is None else "https"
        self._secrets = state_dir.secrets
        self._keys = (state_dir.admin_key, state_dir.cli_key)
        self._had_keys = any(file.exists() for file in self._keys)
        self._secrets.make_webhook_keys()
        if self.needs_keys:
            self._secrets.make(BrokerUser)

    @property
    def new_keys(self) -> str:
        """What control has made at this start, for whoever started it; empty: nothing."""
        if self._had_keys or not all(file.exists() for file in self._keys):
            return ""
        admin, cli = self._keys
        return f"made the first keys: {admin} administers, {cli} uses models"

    @property
    def passwords(self) -> Mapping[BrokerUser, str]:
        """Of the broker's users; empty: it has none."""
        if not self.needs_keys:
            return {}
        return {user: self._secrets.password(user) for user in BrokerUser}

    @property
    def proof(self) -> str:
        """What Envoy adds to every request; empty: nothing."""
        return self._secrets.proof() if self.needs_keys else ""

    @property
    def broker_tls(self) -> TlsPaths | None:
        return None if self.encryption is None else self.encryption.broker

    @property
    def listener(self) -> EdgeOptions:
        """How Envoy treats its clients."""
        return EdgeOptions(
            host=self._options.host,
            port=self._options.port,
            trusted_proxies=self._options.trusted_proxies,
            allowed_origins=self._options.allowed_origins,
            tls=None if self.encryption is None else self.encryption.edge,
        )

    async def open_bus(self, url: str, **options: Any) -> Bus:
        """Connect to the broker as the supervisor does; as `headrace.bus.connect`."""
        try:
            tls = None if self.encryption is None else self.encryption.operator()
        except InvalidTls as error:
            # Why: they may be exchanged just now, and a mesh must not end for that.
            raise BusUnavailable(str(error)) from error
        return await connect(url, **options, tls=tls, credentials_file=self.credentials_file)

    async def keep(
        self, report: Callable[[str, str], None], on_broker_changed: Callable[[], None]
    ) -> None:
        """Renew certificates until cancelled; see `Encryption.keep`."""
        if self.encryption is not None:
            await self.encryption.keep(report, on_broker_changed)

    def public_http(self, *, timeout: float) -> httpx.AsyncClient:
        """Return a client of the public port."""
        if self.encryption is None:
            return httpx.AsyncClient(trust_env=False, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.encryption.store.ca))
        return httpx.AsyncClient(
            trust_env=False,
            timeout=timeout,
            verify=context,
            event_hooks={"request": [_ask_for_the_meshs_certificate]},
        )

    @property
    def credentials_file(self) -> Path | None:
        """The supervisor's own, for the broker."""
        return self._secrets.credentials(BrokerUser.OPERATOR) if self.needs_keys else None

    def is_late(self, role: Role) -> bool:
        """Return whether a mesh is ready without processes of this role."""
        # Why: generation needs control only for what it publishes, which are keys.
        return role is Role.WEB or (role is Role.CONTROL and not self.needs_keys)

    def flags(self, role: Role) -> tuple[str, ...]:
        """Return the settings of a role's processes."""
        encrypted = () if self.encryption is None else self.encryption.flags(role)
        if role is Role.CONTROL:
            encrypted = (*encrypted, f"--webhook-keys-file={self._secrets.webhooks}")
        if not self.needs_keys:
            return encrypted
        flags = [f"--nats-credentials-file={self._secrets.credentials(role)}"]
        if role in _ANSWER_CALLERS:
            flags += [
                "--auth=keys",
                f"--peppers-file={self._secrets.peppers}",
                f"--edge-secret-file={self._secrets.edge}",
            ]
        if role in _DELIVER:
            flags.append(f"--delivery-secret-file={self._secrets.delivery}")
        return (*flags, *encrypted)


def _encryption(options: MeshOptions, state_dir: StateDir) -> Encryption:
    require("mesh", "cryptography")
    # Why here: an installation of the client alone has no cryptography.
    from headrace.supervisor.servers.encryption import Encryption

    encryption = Encryption(state_dir.tls, options)
    encryption.prepare()
    return encryption


async def _ask_for_the_meshs_certificate(request: httpx.Request) -> None:
    # Why: the listener may have another one for clients, whose names lead elsewhere.
    request.extensions["sni_hostname"] = server_name(PUBLIC)
