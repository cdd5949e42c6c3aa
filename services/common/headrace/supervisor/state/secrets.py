"""The secrets of one machine's mesh, in files that only their owner may read.

secrets/peppers          with which digests of keys are made; without them all keys are void
secrets/edge             by which Envoy proves that a call came through it; new at each start
secrets/delivery         what workers and gateways show where they call a gateway
secrets/webhooks         with which secrets of webhooks are encrypted; without it none can be sent
secrets/nats/<user>      one line user:password, for each user of the broker
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from headrace.auth.peppers import PEPPER_BYTES
from headrace.supervisor.state.files import SECRET_MODE, write_atomically

_FOLDER_MODE = 0o700


class MeshSecrets:
    """The folder of the secrets, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.peppers = folder / "peppers"
        self.edge = folder / "edge"
        self.delivery = folder / "delivery"
        self.webhooks = folder / "webhooks"

    @property
    def operator(self) -> Path | None:
        """File of the broker's user that may do everything; None: there are no users."""
        file = self.credentials("operator")
        return file if file.exists() else None

    def credentials(self, user: str) -> Path:
        """Return the file with the user and the password of a user of the broker."""
        return self._folder / "nats" / user

    def password(self, user: str) -> str:
        """Return a user's password, which `make` has made."""
        return self.credentials(user).read_text("utf-8").partition(":")[2].strip()

    def make_webhook_keys(self) -> None:
        """Make the keys that secrets of webhooks are encrypted with, if there are none."""
        self._make_folder(self._folder)
        if not self.webhooks.exists():
            _write(self.webhooks, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())

    def make(self, users: Iterable[str]) -> None:
        """Make what is missing, and a new secret of Envoy."""
        for folder in (self._folder, self._folder / "nats"):
            self._make_folder(folder)
        if not self.peppers.exists():
            pepper = base64.b64encode(secrets.token_bytes(PEPPER_BYTES)).decode()
            # Why not the day alone: lines of two meshes may have to stand in one file.
            pepper_id = f"{time.strftime('%Y-%m-%d', time.gmtime())}-{secrets.token_hex(3)}"
            _write(self.peppers, f"{pepper_id} {pepper}")
        for user in users:
            if not (file := self.credentials(user)).exists():
                _write(file, f"{user}:{secrets.token_hex(32)}")
        # Why kept: workers may outlive the supervisor that has started them, and its gateways.
        if not self.delivery.exists():
            _write(self.delivery, secrets.token_hex(32))
        _write(self.edge, secrets.token_hex(32))

    def proof(self) -> str:
        """Return the secret of Envoy, which `make` has made."""
        return self.edge.read_text("utf-8").strip()

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(_FOLDER_MODE)


def _write(file: Path, line: str) -> None:
    write_atomically(file, f"{line}\n", mode=SECRET_MODE)
