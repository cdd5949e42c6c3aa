"""All that a service needs to check its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from headrace.auth.check.edge import Edge
from headrace.auth.check.gates import Gate, KeyGate, OpenGate
from headrace.auth.check.interceptor import AccessInterceptor, Reject, abort_rejected
from headrace.auth.check.journal import AccessJournal
from headrace.auth.check.report import AccessReporter
from headrace.auth.peppers import Peppers
from headrace.auth.settings import AccessSettings
from headrace.auth.tables import AccessTables
from headrace.bus import Bus
from headrace.clock import Clock
from headrace.credentials.secret_files import SecretFile


class Access:
    """Tables, check and reports of one process.

    access = Access(settings, bus, clock, process_id)
    server = make_server([RejectMalformed(), access.interceptor])
    async with access.running():
        ...  # ready when `not_ready_reason` is None
    """

    def __init__(
        self,
        settings: AccessSettings,
        bus: Bus,
        clock: Clock,
        process_id: str,
        *,
        tenant_header: str = "",
        reject: Reject = abort_rejected,
    ) -> None:
        """
        Args:
            process_id: names this process in reports to control.
            tenant_header: that of the settings, which counts where no keys are required.
            reject: answers rejected calls.

        Raises:
            InsecureSecretFile: a secret file cannot be used.
        """
        self.tables = AccessTables(bus, clock)
        self._reporter: AccessReporter | None = None
        edge = Edge(settings)
        gate: Gate = OpenGate(edge, self.tables, tenant_header)
        self.requires_keys = settings.auth == "keys"
        if self.requires_keys:
            peppers = SecretFile(settings.peppers_file or Path(), Peppers.parse)
            journal = AccessJournal()
            gate = KeyGate(edge, self.tables, peppers.value, clock, journal)
            self._reporter = AccessReporter(bus, journal, clock, process_id)
            tenant_header = ""
        self.interceptor = AccessInterceptor(gate, tenant_header=tenant_header, reject=reject)

    def not_ready_reason(self) -> str | None:
        """Return why callers cannot be checked yet; None if they can be, or need no keys."""
        return self.tables.not_ready_reason() if self.requires_keys else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Access]:
        """Watch the tables and send reports for the length of a `with`."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.tables.watching())
            if self._reporter is not None:
                reporting = asyncio.create_task(self._reporter.run())
                stack.callback(reporting.cancel)
            yield self
