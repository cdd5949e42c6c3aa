"""OrganizationService: OpenAI's usage and costs of an organization."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import parse_qs

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headrace.auth.caller import Caller
from headrace.clock import Clock
from headrace.errors import ResourceNotFound
from headrace.internal.v1.usage_pb2 import UsageKind
from headrace.v1 import organization_pb2 as pb
from headrace.v1.organization_pb2_grpc import OrganizationServiceServicer
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.http.replies import header, send_json
from headrace_control.api.rest_calls import TARGET
from headrace_control.api.usage.pages import GROUPS, costs_page, usage_page
from headrace_control.api.usage.query import COSTS, USAGE, Parameters, UsageQuery, read_query
from headrace_control.store import Store
from headrace_control.store.usage.sums import UsageFilter

KINDS = {
    "completions": UsageKind.USAGE_KIND_COMPLETIONS,
    "embeddings": UsageKind.USAGE_KIND_EMBEDDINGS,
    "rerank": UsageKind.USAGE_KIND_RERANK,
}
WITHOUT_USAGE = (
    *("moderations", "images", "audio_speeches", "audio_transcriptions", "vector_stores"),
    *("code_interpreter_sessions", "file_search_calls", "web_search_calls", "decisions"),
)
"""OpenAI's kinds that no model here has."""
_NONE = ""
"""A tenant that no row has."""


class OrganizationParts(Protocol):
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...


class OrganizationService(OrganizationServiceServicer):
    def __init__(self, parts: OrganizationParts) -> None:
        self._sums, self._clock = parts.store.usage_sums, parts.clock

    async def GetUsage(
        self, request: pb.GetUsageRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        kind = request.kind
        if kind not in KINDS and kind not in WITHOUT_USAGE:
            raise ResourceNotFound(
                f"no usage is called {kind[:64]!a}; there are"
                f" {', '.join((*KINDS, *WITHOUT_USAGE))}",
                field="kind",
            )
        query = read_query(USAGE, _parameters(request, context), now_s=self._now_s())
        if kind not in KINDS:
            yield await send_json(context, usage_page(query, kind, ()))
            return
        which = await self._filter(query, kinds=(KINDS[kind],))
        by = tuple(GROUPS[name] for name in query.group_by)
        sums = await self._sums.sums(which, by, every_ms=query.width_s * 1000)
        yield await send_json(context, usage_page(query, kind, sums))

    async def GetCosts(
        self, request: pb.GetCostsRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        query = read_query(COSTS, _parameters(request, context), now_s=self._now_s())
        by = [GROUPS[name] for name in query.group_by if name in GROUPS]
        if "line_item" in query.group_by:
            by.append("model")
        which = await self._filter(query)
        sums = await self._sums.sums(which, (*by, "currency"), every_ms=query.width_s * 1000)
        yield await send_json(context, costs_page(query, sums))

    async def _filter(self, query: UsageQuery, kinds: Sequence[int] = ()) -> UsageFilter:
        caller = current_caller()
        which = _filter(query, caller, kinds)
        if caller.is_operator:
            return which
        own_ms = await self._sums.own_since_ms(caller.tenant)
        return replace(which, since_ms=max(which.since_ms, own_ms))

    def _now_s(self) -> int:
        return int(self._clock.unix_s())


def _filter(query: UsageQuery, caller: Caller, kinds: Sequence[int]) -> UsageFilter:
    tenants = query.lists.get("project_ids", ())
    if not caller.is_operator:
        # Of another tenant there is nothing, whether or not it exists.
        own = (caller.tenant,)
        tenants = own if not tenants or caller.tenant in tenants else (_NONE,)
    return UsageFilter(
        since_ms=query.buckets[0][0] * 1000,
        until_ms=query.buckets[-1][1] * 1000,
        tenants=tenants,
        models=query.lists.get("models", ()),
        keys=query.lists.get("api_key_ids", ()),
        persons=query.lists.get("user_ids", ()),
        kinds=kinds,
        batch=query.batch,
    )


def _parameters(request: Message, context: Context) -> Parameters:
    """Return the parameters of a REST call as they were written, of others by their fields.

    Envoy passes over what is no field, as `models[]`.
    """
    if target := header(context, TARGET):
        return parse_qs(target.partition("?")[2], keep_blank_values=True)
    fields = ((field.name, value) for field, value in request.ListFields())
    return {name: _texts(value) for name, value in fields if name != "kind"}


def _texts(value: Any) -> list[str]:
    if isinstance(value, bool | int | str):
        return [str(value)]
    return [str(each) for each in value]
