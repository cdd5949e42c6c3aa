"""What every call of the API has at hand."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict
from starlette.requests import Request

from headrace.auth.caller import Caller
from headrace.auth.check.access import Access
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace_web.base.records import JsonObject, Owner
from headrace_web.base.settings import WebSettings
from headrace_web.chat.answering import Answering
from headrace_web.http.context import context_of
from headrace_web.store import Store

SCOPE = "generate"
"""Whoever may generate may chat."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API stands on."""

    settings: WebSettings
    access: Access
    store: Store
    answering: Answering

    @property
    def max_body_bytes(self) -> int:
        """Most bytes of a call: a text, escaped, and what is around it."""
        return 6 * self.settings.max_text_bytes + 64 * 1024

    def caller(self, request: Request) -> Caller:
        """Return who calls.

        Raises:
            HeadraceError: the call must not be served.
        """
        return self.access.admit(SCOPE, context_of(request))

    def owner(self, request: Request) -> Owner:
        """Return whose conversations the call is about; raises as `caller`."""
        caller = self.caller(request)
        return Owner(caller.tenant, caller.actor)


def stored_caller(caller: Caller) -> JsonObject:
    """Return what an answer is asked for with, also when the person has left."""
    found = RowCaller(
        tenant=caller.tenant,
        key_id=caller.key_id,
        person=caller.person,
        scopes=[SCOPE],
        models=sorted(caller.models),
    )
    return MessageToDict(found, preserving_proto_field_name=True)
