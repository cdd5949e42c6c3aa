"""OwnKeyService: the caller's own key, and what is left of its limits."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from headrace.auth.caller import Caller
from headrace.auth.check.interceptor import current_caller
from headrace.internal.v1.own_usage_pb2 import OwnUsageResponse
from headrace.internal.v1.quota_pb2 import LimitState
from headrace.v1.own_key_pb2 import GetOwnKeyRequest, LimitUse, OwnKey, UsageToday
from headrace.v1.own_key_pb2_grpc import OwnKeyServiceServicer
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.native.grpc_errors import abort_on_error
from headrace_gateway.base.calls import Context
from headrace_gateway.quota.limits import limited_models
from headrace_gateway.quota.refusals import is_of_key, limit_name
from headrace_gateway.request.payer import Payer


class OwnKeyService(ApiServicer, OwnKeyServiceServicer):
    async def GetOwnKey(self, request: GetOwnKeyRequest, context: Context) -> OwnKey:
        return await abort_on_error(context, self._key(current_caller()))

    async def _key(self, caller: Caller) -> OwnKey:
        rows = self.services.quotas.rows
        key, tenant = rows.key(caller.key_id), rows.tenant(caller.tenant)
        time_zone = tenant.row.time_zone if tenant is not None else ""
        limits, used = await asyncio.gather(
            self._limits(caller),
            self.services.usage_today.find(caller.tenant, caller.key_id, time_zone),
        )
        found = OwnKey(
            name=_key_name(caller) if caller.key_id else "",
            tenant=f"tenants/{caller.tenant}",
            person=f"people/{caller.person}" if caller.person else "",
            scopes=sorted(caller.scopes),
            models=sorted(caller.models),
            currency=(tenant.row.currency if tenant is not None else "") or "USD",
            limits=(_use(state, caller) for state in limits),
        )
        if key is not None and key.expire_ms:
            found.expire_time.FromMilliseconds(key.expire_ms)
        if used is not None:
            found.usage_today.CopyFrom(_today(used))
        return found

    async def _limits(self, caller: Caller) -> Iterable[LimitState]:
        """Return every limit of the caller, those of single models once for each."""
        quotas = self.services.quotas
        models = limited_models(Payer(caller.tenant, caller.key_id, ""), quotas.rows)
        payers = [Payer(caller.tenant, caller.key_id, model) for model in ("", *sorted(models))]
        found = await asyncio.gather(*map(quotas.describe, payers))
        named = {(s.kind, s.scope, s.model): s for states in found for s in states}
        return named.values()


def _today(used: OwnUsageResponse) -> UsageToday:
    return UsageToday(
        requests=used.requests,
        input_tokens=used.input_tokens,
        cached_input_tokens=used.cached_input_tokens,
        output_tokens=used.output_tokens,
        cost_nanos=used.cost_nanos,
    )


def _use(state: LimitState, caller: Caller) -> LimitUse:
    use = LimitUse(
        limit=limit_name(state.kind),
        subject=_key_name(caller) if is_of_key(state.scope) else f"tenants/{caller.tenant}",
        model=state.model,
        value=state.limit,
        remaining=state.remaining,
        used=state.used,
    )
    if state.reset_ms:
        use.reset_time.FromMilliseconds(state.reset_ms)
    return use


def _key_name(caller: Caller) -> str:
    return f"tenants/{caller.tenant}/keys/{caller.key_id}"
