"""Names of resources, as tenants/acme/members/8f3c, and the ids in them. Pure."""

from __future__ import annotations

from headrace.errors import InvalidRequest

MAX_NAME = 400
"""Characters. Errors repeat ids, and go into a header; the database knows no unprintable ones."""


def ids_in(name: str, pattern: str, *, field: str = "name") -> tuple[str, ...]:
    """Return the ids of a name, for each `{...}` of its pattern.

        ids_in("tenants/acme/members/8f3c", "tenants/{tenant}/members/{person}")

    Raises:
        InvalidRequest: the name is not of this pattern.
    """
    parts, expected = name.split("/"), pattern.split("/")
    ids = tuple(p for p, w in zip(parts, expected, strict=False) if w[0] == "{")
    fixed = (p == w for p, w in zip(parts, expected, strict=False) if w[0] != "{")
    is_sane = len(name) <= MAX_NAME and name.isprintable()
    if len(parts) != len(expected) or not all(ids) or not all(fixed) or not is_sane:
        raise InvalidRequest(f"{field} is {name[:120]!r}; it must be like {pattern}", field=field)
    return ids


def id_in(name: str, pattern: str, *, field: str = "name") -> str:
    """Return the one id of a name. Raises as `ids_in`."""
    (found,) = ids_in(name, pattern, field=field)
    return found
