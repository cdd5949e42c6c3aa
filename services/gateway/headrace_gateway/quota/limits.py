"""Which limits may refuse a request. Pure.

Gateways decide nothing by these limits but whether any applies: the quota keeper decides. What they
do refuse is a call of several requests that no keeper could ever grant together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from headrace.auth.tables import Key, Tenant
from headrace.internal.v1.access_pb2 import Limits
from headrace_gateway.request.payer import Payer


class Rows(Protocol):
    """Tenants and keys, as `AccessTables` has them."""

    def key(self, key_id: str) -> Key | None: ...

    def tenant(self, name: str) -> Tenant | None: ...


def created_ms(rows: Rows, tenant: str) -> int:
    """Return the time at which a tenant was created, in Unix time; 0 if it is not known."""
    found = rows.tenant(tenant)
    return 0 if found is None else found.row.create_ms


def limits_of(payer: Payer, rows: Rows) -> Iterator[Limits]:
    """Yield the limits of all scopes, those without any included."""
    tenant, key = rows.tenant(payer.tenant), rows.key(payer.key_id) if payer.key_id else None
    if tenant is not None:
        yield tenant.row.limits
        if (of_model := tenant.model_limits.get(payer.model)) is not None:
            yield of_model
    if key is not None:
        yield key.limits
        if (of_model := key.model_limits.get(payer.model)) is not None:
            yield of_model


def limited_models(payer: Payer, rows: Rows) -> set[str]:
    """Return the models that have limits of their own, the tenant's or the key's."""
    tenant, key = rows.tenant(payer.tenant), rows.key(payer.key_id)
    of_tenant = () if tenant is None else tenant.model_limits
    of_key = () if key is None else key.model_limits
    return {*of_tenant, *of_key}


def has_limits(payer: Payer, rows: Rows) -> bool:
    return any(limits.ByteSize() for limits in limits_of(payer, rows))


def most_at_once(limits: Iterable[Limits]) -> int | None:
    """Return how many requests of one call the limits can admit at one moment; None: any number.

    By those under way: only one of the call counts by the minute and the day.
    """
    return min(filter(None, (each.concurrent_requests for each in limits)), default=None)


def most_tokens_at_once(limits: Iterable[Limits]) -> int | None:
    """Return how many tokens the limits can admit at one moment; None: any number."""
    fields = ("tokens_per_minute", "tokens_per_day")
    counts = [getattr(each, field) for each in limits for field in fields]
    return min(filter(None, counts), default=None)
