"""What admits calls: `KeyGate` where keys are required, `OpenGate` where they are not."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from headrace.auth.caller import Caller
from headrace.auth.check.authenticator import (
    Authenticator,
    Credentials,
    OutsideNetworks,
    Rejected,
    authorize,
    incorrect_key,
)
from headrace.auth.check.edge import Client, Context, Edge
from headrace.auth.check.failures import FailureLimiter
from headrace.auth.check.journal import AccessJournal
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import DEFAULT_TENANT, PUBLIC
from headrace.auth.tables import USUAL_PRIORITIES, AccessTables
from headrace.clock import Clock
from headrace.errors import (
    ControlUnavailable,
    HeadraceError,
    InvalidRequest,
    PermissionDenied,
    TooManyFailedAttempts,
)
from headrace.v1.access_pb2 import Access

log = logging.getLogger(__name__)

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_S = 1.0


class Gate(Protocol):
    """Decides on every call before its handler is called."""

    def admit(self, access: Access | None, headers: Mapping[str, str], context: Context) -> Caller:
        """Return the caller; `access` is None of a method whose proto does not say who may call.

        Raises:
            HeadraceError: the call must not be served.
        """
        ...


class OpenGate:
    """Admits whoever reaches the port, who may do everything.

    The tenant is that of a header, where one is configured.
    """

    def __init__(self, edge: Edge, tables: AccessTables, tenant_header: str) -> None:
        self._edge, self._tables, self._header = edge, tables, tenant_header

    def admit(self, access: Access | None, headers: Mapping[str, str], context: Context) -> Caller:
        name = headers.get(self._header, DEFAULT_TENANT) if self._header else DEFAULT_TENANT
        if not _TENANT.fullmatch(name):
            fact = f"header {self._header} is {name[:64]!a}; it must be 1 to 64 of"
            raise InvalidRequest(f"{fact} A-Z a-z 0-9 . _ -", field=self._header)
        tenant = self._tables.tenant(name)
        return Caller(
            name,
            *(tenant.priorities if tenant else USUAL_PRIORITIES),
            client=self._edge.client(headers, context).address,
            anonymous=True,
            tenant_create_ms=tenant.row.create_ms if tenant else 0,
        )


class KeyGate:
    """Admits callers with a key or a session, and what is public."""

    def __init__(
        self,
        edge: Edge,
        tables: AccessTables,
        peppers: Callable[[], Peppers],
        clock: Clock,
        journal: AccessJournal,
        limiter: FailureLimiter,
    ) -> None:
        self._edge, self._tables, self._peppers = edge, tables, peppers
        self._clock, self._journal, self._limiter = clock, journal, limiter
        self._authenticator = Authenticator(tables)

    def admit(self, access: Access | None, headers: Mapping[str, str], context: Context) -> Caller:
        client = self._edge.client(headers, context)
        try:
            caller = self._identify(headers, client)
        except HeadraceError:
            if access is None or access.scope != PUBLIC:
                raise
            return _nobody(client)
        if access is None:
            raise PermissionDenied("this method may not be called where keys are required")
        authorize(caller, access)
        return caller

    def _identify(self, headers: Mapping[str, str], client: Client) -> Caller:
        now_ms, peppers = round(self._clock.unix_s() * 1000), self._peppers()
        try:
            credentials = Credentials.of(headers, same_origin=client.same_origin)
            found = self._authenticator.identify(credentials, client, peppers, now_ms)
        except OutsideNetworks as outside:
            self._journal.fail(client.address, outside.reason, outside.key_id, now_ms)
            raise outside.error from None
        except Rejected as rejected:
            raise self._rejection(rejected, client, now_ms) from None
        caller = found.caller
        if credentials.key and self._journal.is_due(caller.key_id, now_ms):
            renewed = None
            if found.outdated is not None:
                renewed = peppers.digest(credentials.key)
                renewed.expire_ms = found.outdated.expire_ms
            self._journal.use(caller.key_id, client.address, now_ms, renewed)
        return caller

    def _rejection(self, rejected: Rejected, client: Client, now_ms: int) -> HeadraceError:
        if (problem := self._tables.not_ready_reason()) is not None:
            return ControlUnavailable(problem, retry_after_s=_RETRY_S)
        if not rejected.reason:
            return incorrect_key()
        wait_s = self._limiter.fail(client.address, self._clock.monotonic_s())
        # Why not the key beyond the limit: each is an entry of its own, and a client can make up as
        # many as it likes.
        key_id = rejected.key_id if wait_s is None else ""
        self._journal.fail(client.address, rejected.reason, key_id, now_ms)
        if wait_s is None:
            return incorrect_key()
        return TooManyFailedAttempts(
            "Too many calls without a valid API key came from this address; the next one is"
            f" checked in {math.ceil(wait_s)} s. Calls with a valid key are not affected",
            retry_after_s=wait_s,
        )


def _nobody(client: Client) -> Caller:
    """Return the caller of a public method without a valid key, who may do nothing else."""
    return Caller(tenant="", scopes=frozenset(), models=frozenset(), client=client.address)
