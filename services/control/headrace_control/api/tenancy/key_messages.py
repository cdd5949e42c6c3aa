"""Keys as messages of the API, and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from headrace.admin.v1 import keys_pb2 as pb
from headrace.auth.scopes import ADMIN, ANY_MODEL, SCOPES
from headrace.errors import InvalidRequest
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy import fields
from headrace_control.base.records import Key

KEY_FIELDS = frozenset(
    {"display_name", "scopes", "models", "networks", "limits", "model_limits"}
    | {"expire_time", "labels"}
)
_NAMED = ", ".join(SCOPES[:-1])


def key_message(key: Key, *, pepper_id: str, now: datetime) -> pb.Key:
    """Return the key as callers see it; `pepper_id` is that of the current pepper."""
    needed = {d.pepper_id for d in key.digests if d.expire_time is None or now < d.expire_time}
    return pb.Key(
        name=f"tenants/{key.tenant}/keys/{key.key_id}",
        display_name=key.display_name,
        person=f"people/{key.person}" if key.person else "",
        scopes=key.scopes,
        models=key.models,
        networks=key.networks,
        limits=fields.limits_message(key.limits),
        model_limits=fields.model_limits_messages(key.model_limits),
        expire_time=fields.timestamp(key.expire_time),
        labels=key.labels,
        redacted=key.redacted,
        create_time=fields.timestamp(key.create_time),
        update_time=fields.timestamp(key.update_time),
        revoke_time=fields.timestamp(key.revoke_time),
        last_use_time=fields.timestamp(key.last_use_time),
        last_use_client=key.last_use_client,
        old_pepper=bool(pepper_id) and bool(needed - {pepper_id}),
    )


def key_in(message: pb.Key, before: Key, *, now: datetime) -> Key:
    """Return the key of `before` with the message's changeable fields.

    Raises:
        InvalidRequest: a field is missing or out of its range.
    """
    scopes = _scopes(message.scopes)
    return replace(
        before,
        display_name=fields.text(
            message.display_name, "key.display_name", longest=fields.MAX_DISPLAY_NAME
        ),
        scopes=scopes,
        models=_models(message.models, scopes),
        networks=fields.networks(message.networks, "key.networks"),
        limits=fields.limits_in(message.limits),
        model_limits=fields.model_limits_in(message.model_limits, "key.model_limits"),
        expire_time=_expiry(message, before, now),
        labels=fields.labels(message.labels, "key.labels"),
    )


def person_in(message: pb.Key) -> str:
    """Return the id of the person of the message; empty if it names none."""
    return id_in(message.person, "people/{person}", field="key.person") if message.person else ""


def _scopes(values: Sequence[str]) -> tuple[str, ...]:
    for each in values:
        if each not in SCOPES:
            raise InvalidRequest(
                f"key.scopes has {each[:64]!r}; scopes are {_NAMED}, and {ADMIN}",
                field="key.scopes",
            )
    if not values:
        raise InvalidRequest(
            f"key.scopes is empty, and a key without scopes may do nothing: name some of {_NAMED},"
            f" or {ADMIN}",
            field="key.scopes",
        )
    if ADMIN in values and set(values) != {ADMIN}:
        raise InvalidRequest(
            f"key.scopes has {ADMIN} and others; a key that administers does nothing else: create"
            " another key for them",
            field="key.scopes",
        )
    return tuple(scope for scope in SCOPES if scope in values)


def _models(values: Sequence[str], scopes: Sequence[str]) -> tuple[str, ...]:
    if ADMIN in scopes:
        # It uses no model, whatever it names.
        return ()
    found = fields.models(values, "key.models")
    if not found:
        raise InvalidRequest(
            "key.models is empty, and a key without models may use none: name some, or"
            f' "{ANY_MODEL}" for all that there are and will be',
            field="key.models",
        )
    if ANY_MODEL in found and len(found) > 1:
        raise InvalidRequest(
            f'key.models has "{ANY_MODEL}", which means all, and other names: give it alone',
            field="key.models",
        )
    return found


def _expiry(message: pb.Key, before: Key, now: datetime) -> datetime | None:
    if not message.HasField("expire_time"):
        return None
    expires = fields.time_in(message.expire_time, "key.expire_time")
    if expires <= now and expires != before.expire_time:
        raise InvalidRequest(
            f"key.expire_time is {expires.isoformat()}, which has passed; revoke a key to end it"
            " now",
            field="key.expire_time",
        )
    return expires
