"""Who may use a mesh, and what its own processes prove themselves with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headrace.supervisor.plan.mesh_options import Auth, Role
from headrace.supervisor.servers.nats_permissions import BrokerUser
from headrace.supervisor.state.state_dir import StateDir

_ANSWER_CALLERS = (Role.GATEWAY, Role.CONTROL)


class MeshAccess:
    """The secrets of a mesh whose callers need keys; of any other mesh nothing.

    Where keys are required, the broker has users as well: who could publish to it could do without
    a key.
    """

    def __init__(self, auth: Auth, state_dir: StateDir) -> None:
        """Make the secrets that are missing.

        Raises:
            OSError: they cannot be written.
        """
        self.needs_keys = auth is Auth.KEYS
        self._secrets = state_dir.secrets
        self._keys = (state_dir.admin_key, state_dir.cli_key)
        self._had_keys = any(file.exists() for file in self._keys)
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
    def credentials_file(self) -> Path | None:
        """The supervisor's own, for the broker."""
        return self._secrets.credentials(BrokerUser.OPERATOR) if self.needs_keys else None

    def flags(self, role: Role) -> tuple[str, ...]:
        """Return the settings of a role's processes."""
        if not self.needs_keys:
            return ()
        flags = [f"--nats-credentials-file={self._secrets.credentials(role)}"]
        if role in _ANSWER_CALLERS:
            flags += [
                "--auth=keys",
                f"--peppers-file={self._secrets.peppers}",
                f"--edge-secret-file={self._secrets.edge}",
            ]
        return tuple(flags)
