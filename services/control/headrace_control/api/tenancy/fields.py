"""What fields may hold, and how the API writes times and limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.errors import InvalidRequest
from headrace_control.base.records import Limits

MAX_DISPLAY_NAME, MAX_NETWORKS, MAX_MODELS, MAX_MODEL_NAME = 200, 100, 200, 256
MAX_LABELS, MAX_LABEL_NAME, MAX_LABEL = 64, 63, 256
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
    return Limits(
        requests_per_minute=message.requests_per_minute,
        tokens_per_minute=message.tokens_per_minute,
        tokens_per_day=message.tokens_per_day,
        concurrent_requests=message.concurrent_requests,
        batch_tokens_per_day=message.batch_tokens_per_day,
    )


def limits_message(limits: Limits) -> pb.Limits:
    return pb.Limits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        tokens_per_day=limits.tokens_per_day,
        concurrent_requests=limits.concurrent_requests,
        batch_tokens_per_day=limits.batch_tokens_per_day,
    )
