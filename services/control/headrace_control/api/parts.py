"""What the services of the API are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.auth.check.access import Access
from headrace.auth.peppers import Peppers
from headrace.bus import Bus
from headrace.clock import Clock
from headrace.credentials.secret_files import SecretFile
from headrace.errors import FailedPrecondition
from headrace.fleet.reports import ReportedFleet
from headrace_control.base.published_rows import time_of
from headrace_control.base.records import Digest
from headrace_control.base.settings import ControlSettings
from headrace_control.files.file_store import FileStore
from headrace_control.store import Store
from headrace_control.webhooks.sealing import SecretSealer


@dataclass(frozen=True, slots=True)
class Parts:
    """Each service takes these as its one argument."""

    settings: ControlSettings
    bus: Bus
    clock: Clock
    store: Store
    peppers: SecretFile[Peppers] | None
    """None where no keys are required and no file of peppers is set."""
    access: Access
    """The check of all calls."""
    fleet: ReportedFleet
    webhook_keys: SecretFile[SecretSealer] | None
    """None: there are no webhooks."""
    files: FileStore
    wake_batches: Callable[[], None]
    """Has the batches looked at, of which one has changed."""

    def digest(self, secret: str) -> Digest:
        """Return the digest of a whole key, under the current pepper.

        Raises:
            FailedPrecondition: there is no pepper.
        """
        if self.peppers is None:
            raise FailedPrecondition(
                "keys cannot be made: control has no peppers_file; `headrace up --auth keys` makes"
                " one, elsewhere set HEADRACE_CONTROL_PEPPERS_FILE"
            )
        made = self.peppers.value().digest(secret)
        return Digest(made.digest, made.pepper_id, time_of(made.expire_ms))

    @property
    def pepper_id(self) -> str:
        """Of the current pepper; empty without one."""
        return "" if self.peppers is None else self.peppers.value().current
