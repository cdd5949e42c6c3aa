"""Records from rows of the database, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.auth.scopes import ANY_MODEL, ROLE_SCOPES, SCOPES
from headrace_control.base.published_rows import EPOCH, milliseconds, time_of
from headrace_control.base.records import (
    AuditEvent,
    Digest,
    Invitation,
    Key,
    Limits,
    Member,
    ModelLimits,
    Person,
    Plan,
    Price,
    Session,
    Tenant,
)

Row = sa.Row[Any]


def some_ms(time: datetime | None) -> int | None:
    return None if time is None else milliseconds(time)


def _time(row_ms: int | None) -> datetime | None:
    return None if row_ms is None else time_of(row_ms)


def _sure_time(row_ms: int) -> datetime:
    return time_of(row_ms) or EPOCH


def limits_of(text: str) -> Limits:
    return Limits(**json.loads(text))


def _model_limits(text: str) -> tuple[ModelLimits, ...]:
    found: dict[str, dict[str, int]] = json.loads(text)
    return tuple(ModelLimits(model, Limits(**limits)) for model, limits in found.items())


def _model_limits_text(each_limits: Iterable[ModelLimits]) -> str:
    return json.dumps({each.model: asdict(each.limits) for each in each_limits})


def _names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def plan_of(row: Row) -> Plan:
    return Plan(
        plan_id=row.plan_id,
        display_name=row.display_name,
        limits=limits_of(row.limits),
        create_time=_time(row.create_ms),
        update_time=_time(row.update_ms),
    )


def plan_values(plan: Plan) -> dict[str, Any]:
    return {"display_name": plan.display_name, "limits": json.dumps(asdict(plan.limits))}


def tenant_of(row: Row) -> Tenant:
    return Tenant(
        tenant_id=row.tenant_id,
        display_name=row.display_name,
        plan=row.plan or "",
        default_priority=row.default_priority,
        highest_priority=row.highest_priority,
        weight=row.weight,
        networks=_names(row.networks),
        disabled=row.disabled,
        model_limits=_model_limits(row.model_limits),
        time_zone=row.time_zone,
        currency=row.currency,
        allow_on_keeper_loss=row.allow_on_keeper_loss,
        response_cache=row.response_cache,
        forbid_upstream_engines=row.forbid_upstream_engines,
        create_time=_time(row.create_ms),
        update_time=_time(row.update_ms),
    )


def tenant_values(tenant: Tenant) -> dict[str, Any]:
    return {
        "display_name": tenant.display_name,
        "plan": tenant.plan or None,
        "default_priority": int(tenant.default_priority),
        "highest_priority": int(tenant.highest_priority),
        "weight": tenant.weight,
        "networks": json.dumps(tenant.networks),
        "disabled": tenant.disabled,
        "model_limits": _model_limits_text(tenant.model_limits),
        "time_zone": tenant.time_zone,
        "currency": tenant.currency,
        "allow_on_keeper_loss": tenant.allow_on_keeper_loss,
        "response_cache": tenant.response_cache,
        "forbid_upstream_engines": tenant.forbid_upstream_engines,
    }


def price_of(row: Row) -> Price:
    return Price(
        model=row.model,
        currency=row.currency,
        valid_from=_time(row.valid_from_ms),
        input_nanos=row.input_nanos,
        cached_input_nanos=row.cached_input_nanos,
        output_nanos=row.output_nanos,
        price_id=row.price_id,
        create_time=_time(row.create_ms),
    )


def key_of(row: Row) -> Key:
    return Key(
        key_id=row.key_id,
        tenant=row.tenant,
        person=row.person or "",
        display_name=row.display_name,
        scopes=_names(row.scopes),
        models=_names(row.models),
        networks=_names(row.networks),
        limits=limits_of(row.limits),
        model_limits=_model_limits(row.model_limits),
        labels=json.loads(row.labels),
        redacted=row.redacted,
        expire_time=_time(row.expire_ms),
        digests=digests_of(row.digests),
        create_time=_time(row.create_ms),
        update_time=_time(row.update_ms),
        revoke_time=_time(row.revoke_ms),
        last_use_time=_time(row.last_use_ms),
        last_use_client=row.last_use_client,
    )


def key_values(key: Key) -> dict[str, Any]:
    """Return what a change of a key may change; not whose it is, nor its secrets."""
    return {
        "display_name": key.display_name,
        "scopes": json.dumps(key.scopes),
        "models": json.dumps(key.models),
        "networks": json.dumps(key.networks),
        "limits": json.dumps(asdict(key.limits)),
        "model_limits": _model_limits_text(key.model_limits),
        "labels": json.dumps(dict(key.labels), sort_keys=True),
        "expire_ms": some_ms(key.expire_time),
    }


def digests_of(text: str) -> tuple[Digest, ...]:
    return tuple(
        Digest(bytes.fromhex(each["digest"]), each["pepper_id"], _time(each["expire_ms"]))
        for each in json.loads(text)
    )


def digests_text(digests: Iterable[Digest]) -> str:
    return json.dumps(
        [
            {
                "digest": each.digest.hex(),
                "pepper_id": each.pepper_id,
                "expire_ms": some_ms(each.expire_time),
            }
            for each in digests
        ]
    )


def person_of(row: Row) -> Person:
    return Person(
        person_id=row.person_id,
        email=row.email,
        display_name=row.display_name,
        issuer=row.issuer or "",
        subject=row.subject or "",
        deactivated=row.deactivated,
        create_time=_time(row.create_ms),
        last_sign_in_time=_time(row.last_sign_in_ms),
    )


def member_of(row: Row) -> Member:
    """Return the member of a row of `members` with the person's `email`."""
    return Member(row.tenant, row.person, row.role, row.email, _time(row.create_ms))


def invitation_of(row: Row) -> Invitation:
    return Invitation(
        invitation_id=row.invitation_id,
        tenant=row.tenant,
        email=row.email,
        role=row.role,
        expire_time=_sure_time(row.expire_ms),
        create_time=_time(row.create_ms),
    )


def session_of(row: Row) -> Session:
    """Return the session of a row of `published.SESSIONS`."""
    with_key = row.key_id is not None
    role = "" if with_key else row.role or ""
    expires = [ms for ms in (row.expire_ms, row.key_expire_ms) if ms is not None]
    scopes = ROLE_SCOPES.get(row.role or "", frozenset())
    of_role = tuple(scope for scope in SCOPES if scope in scopes)
    of_key = _names(row.key_scopes) if with_key else ()
    if with_key and row.person:
        of_key = tuple(scope for scope in of_key if scope in scopes)
    return Session(
        session_id=row.session_id,
        digest=row.digest,
        tenant=row.tenant,
        person=row.person or "",
        key_id=row.key_id or "",
        opened_by=row.opened_by,
        client=row.client,
        create_time=_time(row.create_ms),
        expire_time=_sure_time(min(expires)),
        role=role,
        scopes=of_key if with_key else of_role,
        models=_names(row.key_models) if with_key else (ANY_MODEL,),
        networks=_names(row.key_networks) if with_key else (),
    )


def event_of(row: Row) -> AuditEvent:
    return AuditEvent(
        sequence=row.sequence,
        time=_sure_time(row.time_ms),
        action=row.action,
        resource=row.resource,
        tenant=row.tenant,
        actor=row.actor,
        client=row.client,
        details=row.details,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )
