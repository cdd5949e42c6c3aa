"""Who may see, make and change which keys and tenants. Pure.

What a caller may not see is not found, in the words of what does not exist; what it may see and not
change is denied.
"""

from __future__ import annotations

from dataclasses import asdict

from headrace.auth.caller import Caller
from headrace.auth.networks import is_within
from headrace.auth.scopes import ADMIN, ANY_MODEL, ROLE_SCOPES, USER_SCOPES
from headrace.errors import InvalidRequest, PermissionDenied, ResourceNotFound
from headrace_control.base.records import VIEWER, Actor, Key, Limits

EVERY_TENANT = "-"


def actor(caller: Caller) -> Actor:
    return Actor(caller.actor, caller.client)


def no_tenant(tenant: str) -> ResourceNotFound:
    return ResourceNotFound(f"tenant {tenant} not found")


def no_key(key_id: str) -> ResourceNotFound:
    return ResourceNotFound(f"key {key_id} not found")


def require_tenant(caller: Caller, tenant: str) -> None:
    """
    Raises:
        ResourceNotFound: the caller may not know whether there is such a tenant.
    """
    if not caller.may_administer(tenant) and tenant != caller.tenant:
        raise no_tenant(tenant)


def may_see(caller: Caller, key: Key) -> bool:
    return (
        caller.may_administer(key.tenant)
        or _is_own(caller, key)
        or (key.tenant == caller.tenant and key.key_id == caller.key_id)
    )


def require_change(caller: Caller, key: Key, verb: str) -> None:
    """
    Raises:
        PermissionDenied: the caller sees the key and may not change it.
    """
    if not caller.may_administer(key.tenant) and not _is_own(caller, key):
        raise PermissionDenied(
            f"{verb} a key of tenant {key.tenant} needs the scope {ADMIN}; a person may do so with"
            " keys of their own"
        )


def require_secret(caller: Caller, key: Key, own: Key | None) -> None:
    """Check that a caller who would get a secret of this key may have it.

    Args:
        own: as `check_grant`.

    Raises:
        PermissionDenied: it is another person's, or may do more than the caller.
    """
    # Why administrators neither: who has a person's key acts, and signs in, as this person.
    if key.person and not _is_own(caller, key):
        raise PermissionDenied(
            f"key {key.key_id} is a person's own, who alone gets its secrets: revoke it instead"
        )
    try:
        check_grant(caller, key, own)
    except InvalidRequest as error:
        raise PermissionDenied(
            f"key {key.key_id} may do more than the caller, who would get its secret: {error}"
        ) from None


def key_owner(caller: Caller, tenant: str, person: str, role: str) -> str:
    """Return the person whose key a new key is; empty for the tenant's own.

    Args:
        person: that the caller names.
        role: of the caller's person in the tenant; empty without a person.

    Raises:
        PermissionDenied: the caller may make no key.
        InvalidRequest: the key would be another person's.
    """
    if person and person != caller.person:
        raise InvalidRequest(
            "key.person names another person; people make their own keys, and administrators make"
            " the tenant's, with an empty key.person",
            field="key.person",
        )
    if caller.may_administer(tenant):
        return person
    if not caller.person:
        raise PermissionDenied(f"creating a key of tenant {tenant} needs the scope {ADMIN}")
    if role in ("", VIEWER):
        raise PermissionDenied(f"a {role or 'person'} of tenant {tenant} may not create keys")
    return caller.person


def check_grant(caller: Caller, key: Key, own: Key | None) -> None:
    """Check that a caller may make a key that does what this one does.

    Args:
        own: the key of the call, or that its session was opened with; None: there is none.

    Raises:
        InvalidRequest: it may do more than its maker.
    """
    if caller.may_administer(key.tenant):
        return
    if surplus := [scope for scope in key.scopes if scope not in _grantable(caller)]:
        raise InvalidRequest(
            f"key.scopes has {', '.join(surplus)}, which the caller may not grant",
            field="key.scopes",
        )
    if own is not None:
        _check_bounds(own, key)
    if ANY_MODEL in caller.models:
        return
    if more := [model for model in key.models if model not in caller.models]:
        raise InvalidRequest(
            f"key.models has {', '.join(more)}, which the caller may not use", field="key.models"
        )


def _check_bounds(own: Key, key: Key) -> None:
    """Check that a key is valid no longer, nowhere else, and for no more, than the one that makes
    it."""
    _check_limits(own.limits, key.limits, "key.limits")
    of_models = {each.model: each.limits for each in key.model_limits}
    for each in own.model_limits:
        field = f"key.model_limits[{each.model}]"
        _check_limits(each.limits, of_models.get(each.model, Limits()), field)
    ends = own.expire_time
    if ends is not None and (key.expire_time is None or key.expire_time > ends):
        raise InvalidRequest(
            f"key.expire_time must be {ends.isoformat()} at the latest, when the caller's own key"
            " expires",
            field="key.expire_time",
        )
    inside = not own.networks or (
        key.networks and all(is_within(each, own.networks) for each in key.networks)
    )
    if not inside:
        raise InvalidRequest(
            f"key.networks must be in {', '.join(own.networks)}, as those of the caller's own key",
            field="key.networks",
        )


def _check_limits(own: Limits, limits: Limits, field: str) -> None:
    for name, most in asdict(own).items():
        if most and not 0 < getattr(limits, name) <= most:
            raise InvalidRequest(
                f"{field}.{name} must be 1 to {most}, as that of the caller's own key",
                field=f"{field}.{name}",
            )


def _grantable(caller: Caller) -> frozenset[str]:
    role = ROLE_SCOPES.get(caller.role, frozenset(USER_SCOPES))
    return (caller.scopes & role) - {ADMIN}


def _is_own(caller: Caller, key: Key) -> bool:
    return bool(key.person) and (key.person, key.tenant) == (caller.person, caller.tenant)
