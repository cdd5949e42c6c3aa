"""All that a service needs to check its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from headrace.auth.caller import Caller
from headrace.auth.check.authenticator import AUTHORIZATION
from headrace.auth.check.edge import HEADERS, Client, Context, Edge
from headrace.auth.check.failures import FailureLimiter
from headrace.auth.check.gates import Gate, KeyGate, OpenGate
from headrace.auth.check.interceptor import AccessInterceptor, Reject, abort_rejected
from headrace.auth.check.journal import AccessJournal
from headrace.auth.check.report import AccessReporter
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import SIGNED_IN
from headrace.auth.settings import AccessSettings
from headrace.auth.tables import AccessTables
from headrace.bus import Bus
from headrace.clock import Clock
from headrace.credentials.secret_files import SecretFile
from headrace.v1.access_pb2 import Access as CallAccess


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
        self._edge = edge = Edge(settings)
        gate: Gate = OpenGate(edge, self.tables, tenant_header)
        self.requires_keys = settings.auth == "keys"
        if self.requires_keys:
            peppers = SecretFile(settings.peppers_file or Path(), Peppers.parse)
            journal = AccessJournal()
            limiter = FailureLimiter(settings.failed_attempts_per_minute)
            gate = KeyGate(edge, self.tables, peppers.value, clock, journal, limiter)
            self._reporter = AccessReporter(bus, journal, clock, process_id)
            tenant_header = ""
        self._gate = gate
        self.interceptor = AccessInterceptor(gate, tenant_header=tenant_header, reject=reject)

    def not_ready_reason(self) -> str | None:
        """Return why callers cannot be checked yet; None if they can be, or need no keys."""
        return self.tables.not_ready_reason() if self.requires_keys else None

    def client(self, context: Context) -> Client:
        """Return who is at the other end of a call."""
        return self._edge.client(_proofs(context), context)

    def admit(self, scope: str, context: Context) -> Caller:
        """Return the caller of a call that no interceptor has admitted: one by plain HTTP.

        Raises:
            HeadraceError: the call must not be served.
        """
        headers = self.interceptor.headers_of(context)
        return self._gate.admit(CallAccess(scope=scope), headers, context)

    def caller_with_key(self, key: str, context: Context) -> Caller:
        """Return whose key it is that a call has in its message, as if it were in its headers.

        Raises:
            HeadraceError: as for any call; a failure counts like any.
        """
        headers = {**_proofs(context), AUTHORIZATION: f"Bearer {key}"}
        return self._gate.admit(CallAccess(scope=SIGNED_IN), headers, context)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Access]:
        """Watch the tables and send reports for the length of a `with`."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.tables.watching())
            if self._reporter is not None:
                reporting = asyncio.create_task(self._reporter.run())
                stack.callback(reporting.cancel)
            yield self


def _proofs(context: Context) -> dict[str, str]:
    """Return the headers that say which way a call came."""
    found = context.invocation_metadata() or ()
    return {name: value for name, value in found if name in HEADERS and isinstance(value, str)}
