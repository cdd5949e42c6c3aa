"""What fields may hold, and how the API writes times and limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import ip_network
from operator import attrgetter

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.billing.time_zones import time_zones
from headrace.errors import InvalidRequest
from headrace_control.base.records import Limits, ModelLimits

MAX_DISPLAY_NAME, MAX_NETWORKS, MAX_MODELS, MAX_MODEL_NAME = 200, 100, 200, 256
MAX_LABELS, MAX_LABEL_NAME, MAX_LABEL = 64, 63, 256
_LIMITS = tuple(each.name for each in fields_of(Limits))
_CURRENCY = re.compile("[A-Z]{3}")
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)


def text(value: str, field: str, *, longest: int) -> str:
    """Return a text that is shown to people.

    Raises:
        InvalidRequest: it is too long, or has control characters.
    """
    if len(value) > longest:
        raise InvalidRequest(
            f"{field} has {len(value)} characters; at most {longest} are allowed", field=field
        )
    if not value.isprintable():
        raise InvalidRequest(f"{field} has characters that cannot be printed", field=field)
    return value


def networks(values: Iterable[str], field: str) -> tuple[str, ...]:
    """Return networks in the form that gateways read, each once.

    Raises:
        InvalidRequest: one is no network, or has bits behind its prefix.
    """
    found = dict.fromkeys(_network(each, f"{field}[{i}]") for i, each in enumerate(values))
    return tuple(_bounded(tuple(found), field, MAX_NETWORKS))


def _network(value: str, field: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise InvalidRequest(
            f"{field} is no network: {error}; write one as 10.1.0.0/16, or an address as 10.1.2.3",
            field=field,
        ) from None


def models(values: Iterable[str], field: str) -> tuple[str, ...]:
    """Return names of models, each once.

    Raises:
        InvalidRequest: a name cannot be that of a model.
    """
    found = tuple(dict.fromkeys(values))
    for i, each in enumerate(found):
        if not each:
            raise InvalidRequest(f"{field}[{i}] is empty", field=f"{field}[{i}]")
        text(each, f"{field}[{i}]", longest=MAX_MODEL_NAME)
    return tuple(_bounded(found, field, MAX_MODELS))


def labels(values: Mapping[str, str], field: str) -> dict[str, str]:
    """Return labels.

    Raises:
        InvalidRequest: there are too many, or one is too long.
    """
    if len(values) > MAX_LABELS:
        raise InvalidRequest(
            f"{field} has {len(values)} entries; at most {MAX_LABELS} are allowed", field=field
        )
    for name, value in values.items():
        if not name:
            raise InvalidRequest(f"{field} has an empty name", field=field)
        text(name, f"name {name[:80]!r} of {field}", longest=MAX_LABEL_NAME)
        text(value, f"{field}.{name}", longest=MAX_LABEL)
    return dict(sorted(values.items()))


def _bounded(values: tuple[str, ...], field: str, most: int) -> tuple[str, ...]:
    if len(values) > most:
        raise InvalidRequest(
            f"{field} has {len(values)} entries; at most {most} are allowed", field=field
        )
    return values


def time_in(value: Timestamp, field: str) -> datetime:
    """Return a time, to the millisecond.

    Raises:
        InvalidRequest: it is none, or beyond the year 9000.
    """
    try:
        found = value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{field} is no time: {error}", field=field) from None
    if found >= _LATEST:
        raise InvalidRequest(f"{field} is after the year 8999", field=field)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


def timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    found = Timestamp()
    found.FromDatetime(time)
    return found


def limits_in(message: pb.Limits) -> Limits:
    return Limits(**{name: getattr(message, name) for name in _LIMITS})


def limits_message(limits: Limits) -> pb.Limits:
    return pb.Limits(**asdict(limits))


def model_limits_in(messages: Sequence[pb.ModelLimits], field: str) -> tuple[ModelLimits, ...]:
    """Return the limits of single models, by name, without those that limit nothing.

    Raises:
        InvalidRequest: a name cannot be that of a model, or is there twice.
    """
    names = models([each.model for each in messages], field)
    if len(names) != len(messages):
        raise InvalidRequest(f"{field} has a model twice: give all its limits at once", field=field)
    found = (ModelLimits(each.model, limits_in(each.limits)) for each in messages)
    return tuple(sorted((m for m in found if m.limits != Limits()), key=attrgetter("model")))


def model_limits_messages(each_limits: Iterable[ModelLimits]) -> list[pb.ModelLimits]:
    return [pb.ModelLimits(model=m.model, limits=limits_message(m.limits)) for m in each_limits]


def time_zone(value: str, field: str) -> str:
    """Return the name of a time zone; UTC for an empty one.

    Raises:
        InvalidRequest: the database of time zones has none of this name.
    """
    if value and value not in time_zones():
        near = get_close_matches(value[:64], time_zones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidRequest(
            f"{field} is {value[:64]!r}, which is no time zone: give an IANA name, as"
            f" Europe/Zurich{hint}",
            field=field,
        )
    return value or "UTC"


def currency(value: str, field: str) -> str:
    """Return the code of a currency; USD for an empty one.

    Raises:
        InvalidRequest: it has not the shape of one.
    """
    if value and not _CURRENCY.fullmatch(value):
        raise InvalidRequest(
            f"{field} is {value[:64]!r}, which is no currency: give its ISO 4217 code, three"
            " capitals as EUR",
            field=field,
        )
    return value or "USD"
