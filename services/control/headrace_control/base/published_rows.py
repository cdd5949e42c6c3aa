"""The rows that gateways and schedulers see, made from what the database holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from headrace.auth.scopes import ROLE_SCOPES
from headrace.internal.v1 import access_pb2
from headrace_control.base.records import Key, Limits, ModelLimits, Price, Session, Tenant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(time: datetime | None) -> int:
    """Return Unix milliseconds; 0 for None."""
    return 0 if time is None else (time - EPOCH) // _MILLISECOND


def time_of(milliseconds: int) -> datetime | None:
    """Return the time of Unix milliseconds; None for 0."""
    return EPOCH + milliseconds * _MILLISECOND if milliseconds else None


def tenant_row(tenant: Tenant, limits: Limits) -> bytes:
    """Return the tenant's row, with the limits of its plan."""
    return access_pb2.TenantRow(
        tenant=tenant.tenant_id,
        disabled=tenant.disabled,
        default_priority=tenant.default_priority,
        highest_priority=tenant.highest_priority,
        weight=tenant.weight,
        networks=tenant.networks,
        limits=_limits(limits),
        model_limits=_model_limits(tenant.model_limits),
        time_zone=tenant.time_zone,
        currency=tenant.currency,
        on_keeper_loss=(
            access_pb2.KEEPER_LOSS_ALLOW
            if tenant.allow_on_keeper_loss
            else access_pb2.KEEPER_LOSS_UNSPECIFIED
        ),
        response_cache=tenant.response_cache,
        forbid_upstream_engines=tenant.forbid_upstream_engines,
        create_ms=milliseconds(tenant.create_time),
    ).SerializeToString(deterministic=True)


def key_row(key: Key, role: str) -> bytes:
    """Return the row of a key that is not revoked.

    Args:
        role: of the key's person in the tenant; a person's key may do no more than its person. Not
            looked at for a tenant's own key.
    """
    scopes = key.scopes
    if key.person:
        scopes = tuple(s for s in scopes if s in ROLE_SCOPES.get(role, frozenset()))
    digests = (
        access_pb2.KeyDigest(
            digest=each.digest,
            pepper_id=each.pepper_id,
            expire_ms=milliseconds(each.expire_time),
        )
        for each in key.digests
    )
    return access_pb2.KeyRow(
        key_id=key.key_id,
        tenant=key.tenant,
        person=key.person,
        digests=digests,
        expire_ms=milliseconds(key.expire_time),
        scopes=scopes,
        models=key.models,
        networks=key.networks,
        limits=_limits(key.limits),
        model_limits=_model_limits(key.model_limits),
    ).SerializeToString(deterministic=True)


def session_row(session: Session) -> bytes:
    return access_pb2.SessionRow(
        session_id=session.session_id,
        tenant=session.tenant,
        person=session.person,
        role=session.role,
        expire_ms=milliseconds(session.expire_time),
        key_id=session.key_id,
        scopes=session.scopes,
        models=session.models,
        networks=session.networks,
    ).SerializeToString(deterministic=True)


def price_row(price: Price) -> bytes:
    return access_pb2.PriceRow(
        model=price.model,
        currency=price.currency,
        valid_from_ms=milliseconds(price.valid_from),
        input_nanos=price.input_nanos,
        cached_input_nanos=price.cached_input_nanos,
        output_nanos=price.output_nanos,
    ).SerializeToString(deterministic=True)


def _limits(limits: Limits) -> access_pb2.Limits:
    return access_pb2.Limits(**asdict(limits))


def _model_limits(each_limits: Iterable[ModelLimits]) -> Iterable[access_pb2.ModelLimits]:
    return (access_pb2.ModelLimits(model=m.model, limits=_limits(m.limits)) for m in each_limits)
