"""The one place where calls are admitted: before a handler runs, its call has a `Caller`.

A handler reads it by `current_caller()`. A call that is rejected reaches no handler: `reject`
answers it, which knows in which format this handler's callers read errors.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor_pool import Default

from headrace.auth.caller import Caller
from headrace.auth.check.authenticator import SECRET_HEADERS
from headrace.auth.check.edge import HEADERS, Context
from headrace.auth.check.gates import Gate
from headrace.auth.scopes import access_of
from headrace.errors import HeadraceError
from headrace.rpc.status import abort
from headrace.v1.access_pb2 import Access

Handler = Callable[[Any, Any], Any]
Reject = Callable[[Handler, HeadraceError, Any, Context], Awaitable[Any]]
"""Answers a call in place of its handler, which is the first argument; then the error, the request
and the context."""

UNCHECKED = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Starts of methods that everything may call: they say which services there are, and no more."""

_CALLER: ContextVar[Caller] = ContextVar("caller")
_ADMIT: ContextVar[Callable[[], Caller] | None] = ContextVar("admit", default=None)
"""Checks the call that this task serves once more."""


def current_caller() -> Caller:
    """Return the caller of the call that this task serves.

    Raises:
        LookupError: no interceptor has admitted it; there is no default, so that nothing is served
            by mistake.
    """
    return _CALLER.get()


def recheck_caller() -> None:
    """Check once more whether the caller of the call that this task serves may make it.

    For calls without an end: those who have lost their access must not listen on.

    Raises:
        HeadraceError: the caller may not, as if it began now.
    """
    if (admit := _ADMIT.get()) is not None:
        admit()


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Serve what is in the `with` on behalf of this caller, as a call of this caller is served."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


async def abort_rejected(
    handler: Handler, error: HeadraceError, request: Any, context: Context
) -> None:
    """A `Reject` for services whose callers speak gRPC."""
    await abort(context, error)


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Checks every call. Put it last: what it wraps are the services' own handlers."""

    def __init__(
        self, gate: Gate, *, tenant_header: str = "", reject: Reject = abort_rejected
    ) -> None:
        self._gate, self._reject = gate, reject
        self._headers = SECRET_HEADERS | HEADERS | {tenant_header}
        self._checked: dict[str, tuple[Any, Any]] = {}
        """By method: its handler, and the handler with the check."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found, method = await continuation(handler_call_details), handler_call_details.method
        if found is None or method.startswith(UNCHECKED):
            return found
        known = self._checked.get(method)
        if known is None or known[0] is not found:
            known = self._checked[method] = found, self._check(found, _access(method))
        return known[1]

    def _check(self, found: Any, access: Access | None) -> Any:
        kinds = "stream" if found.request_streaming else "unary"
        answers = "stream" if found.response_streaming else "unary"
        name = f"{kinds}_{answers}"
        make = getattr(grpc, f"{name}_rpc_method_handler")
        serve = self._checking(getattr(found, name), access)
        return make(serve, found.request_deserializer, found.response_serializer)

    def _checking(self, serve: Handler, access: Access | None) -> Handler:
        if inspect.isasyncgenfunction(serve):

            async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
                if await self._admits(serve, access, request, context):
                    async for message in serve(request, context):
                        yield message

            return generated

        async def served(request: Any, context: Any) -> Any:
            try:
                caller = self._gate.admit(access, self.headers_of(context), context)
            except HeadraceError as error:
                return await self._reject(serve, error, request, context)
            _CALLER.set(caller)
            return await serve(request, context)

        return served

    async def _admits(
        self, serve: Handler, access: Access | None, request: Any, context: Any
    ) -> bool:
        admit = partial(self._gate.admit, access, self.headers_of(context), context)
        try:
            _CALLER.set(admit())
        except HeadraceError as error:
            await self._reject(serve, error, request, context)
            return False
        _ADMIT.set(admit)
        return True

    def headers_of(self, context: Context) -> dict[str, str]:
        """Return the headers that say who calls; values of a repeated one are joined."""
        headers: dict[str, str] = {}
        for name, value in context.invocation_metadata() or ():
            if name in self._headers and isinstance(value, str):
                headers[name] = f"{headers[name]},{value}" if name in headers else value
        return headers


def _access(method: str) -> Access | None:
    """Return who may call the method of this path; None if its proto does not say so.

    The generated module of its proto must have been imported, which stubs without messages of
    their own do not do.
    """
    try:
        described = Default().FindMethodByName(method[1:].replace("/", "."))
    except KeyError:
        return None
    return access_of(described)
