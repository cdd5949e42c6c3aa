"""What each user of the broker may publish and subscribe to. Pure.

Each role of a process is a user, so whoever has taken over one kind of process cannot act as
another. What a worker may do, as nats-server's configuration has it:

    publish      headrace.reports.worker, headrace.scheduler.*.park, $KV.headrace_cards.>, …
    subscribe    headrace.worker.*.dispatch, _INBOX_worker.>, …
    and not      headrace.requests.>: it submits none; $KV.headrace_keys.>: only control writes keys

A process answers a request by the reply subject that comes with it, which the broker allows once
for each message (`allow_responses`), so that no role needs access to the inboxes of another. So
none but control, which may do nearly all, may both publish and receive a subject: its own message
could have any reply subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headrace.bus import stores, subjects
from headrace.bus.usage import KEEPER

_API = "$JS.API"
_EVERYTHING = (">",)


class BrokerUser(StrEnum):
    """Users of the broker: a role of processes each."""

    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    CONTROL = "control"
    WEB = "web"
    OPERATOR = "operator"
    """The supervisor, and the command line of whoever runs the mesh."""


@dataclass(frozen=True, slots=True)
class Permissions:
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(user: BrokerUser) -> Permissions:
    """Return what the processes of a role do with the broker, and no more."""
    match user:
        case BrokerUser.GATEWAY:
            return _permissions(user, _GATEWAY_PUBLISHES, _GATEWAY_READS)
        case BrokerUser.SCHEDULER:
            return _permissions(user, _SCHEDULER_PUBLISHES, _SCHEDULER_READS)
        case BrokerUser.WORKER:
            return _permissions(user, _WORKER_PUBLISHES, _WORKER_READS)
        case BrokerUser.CONTROL:
            return _permissions(user, _CONTROL_PUBLISHES, _CONTROL_READS)
        case BrokerUser.WEB:
            return _permissions(user, _WEB_PUBLISHES, _WEB_READS)
        case BrokerUser.OPERATOR:
            return Permissions(_EVERYTHING, _EVERYTHING)


def authorization(passwords: Mapping[BrokerUser, str]) -> dict[str, Any]:
    """Return the block `authorization` of nats-server's configuration."""
    return {"users": [_user(user, password) for user, password in passwords.items()]}


def _user(user: BrokerUser, password: str) -> dict[str, Any]:
    allowed = permissions(user)
    return {
        "user": user.value,
        "password": password,
        "permissions": {
            "publish": {"allow": list(allowed.publish)},
            "subscribe": {"allow": list(allowed.subscribe)},
            "allow_responses": {"max": 1, "expires": "1m"},
        },
    }


def _permissions(
    user: BrokerUser, publishes: Iterable[str], subscribes: Iterable[str]
) -> Permissions:
    return Permissions(
        publish=(*_CREATES, *publishes),
        subscribe=(f"{subjects.inbox_prefix(user)}.>", subjects.BROKER_REPORTS, *subscribes),
    )


def _kv(bucket: str) -> str:
    return f"KV_{bucket}"


def _consumers(stream: str) -> tuple[str, ...]:
    """Return the calls by which a stream is read with a consumer."""
    calls = ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "MSG.NEXT")
    return (
        f"{_API}.CONSUMER.CREATE.{stream}",
        *(f"{_API}.CONSUMER.{call}.{stream}.>" for call in calls),
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def _messages(stream: str) -> tuple[str, ...]:
    """Return the calls by which single messages are read.

    Not DIRECT.GET: its answer is the message as it was written, and goes to whatever subject the
    caller names, so that who writes to any stream could write to the tables of keys and sessions.
    """
    return (f"{_API}.STREAM.INFO.{stream}", f"{_API}.STREAM.MSG.GET.{stream}")


def _reading(stream: str) -> tuple[str, ...]:
    return (*_messages(stream), *_consumers(stream))


def _row_writing(table: str) -> str:
    return f"$KV.{stores.bucket_of(table)}.>"


_TOKENIZER_STREAM, _FILE_STREAM = (
    f"OBJ_{bucket}" for bucket in (stores.TOKENIZER_BUCKET, stores.FILE_BUCKET)
)
_TABLE_STREAMS = tuple(_kv(stores.bucket_of(table)) for table in subjects.TABLES)
_CREATES = (
    # Every process creates what is missing when it connects. A stream that is there stays as it
    # is: another configuration is refused.
    *(
        f"{_API}.STREAM.CREATE.{stream}"
        for stream in (
            *(stores.REQUEST_STREAM, stores.RESULT_STREAM, stores.DEAD_STREAM),
            *(stores.USAGE_STREAM, _kv(stores.POSITION_BUCKET), stores.QUOTA_JOURNAL),
            *(stores.RESPONSE_STREAM, stores.CONVERSATION_STREAM),
            *(_kv(stores.CARD_BUCKET), _kv(stores.LEASE_BUCKET)),
            *(_TOKENIZER_STREAM, _FILE_STREAM),
            *_TABLE_STREAMS,
        )
    ),
    f"{_API}.STREAM.NAMES",
)
_UPDATES = tuple(
    # Of an earlier version of Headrace; the others wait until control has done it. No other role:
    # a stream can be told to publish again, as any subject, what is written to it.
    f"{_API}.STREAM.UPDATE.{stream}"
    for stream in (
        *(stores.REQUEST_STREAM, stores.RESULT_STREAM, stores.DEAD_STREAM),
        *(stores.USAGE_STREAM, stores.QUOTA_JOURNAL, stores.RESPONSE_STREAM),
        stores.CONVERSATION_STREAM,
    )
)
_MODELS_READ = (*_reading(_kv(stores.CARD_BUCKET)), *_reading(_TOKENIZER_STREAM))
_CARDS_WRITE = f"$KV.{stores.CARD_BUCKET}.>"
_LANES_WRITE = f"{subjects.REQUESTS}.*.*"
_RESULTS_WRITE = f"{subjects.RESULTS}.*"
_LEASES_READ = _messages(_kv(stores.LEASE_BUCKET))
_DRAIN = "headrace.control.*.drain"
_USAGE_NAME = f"$KV.{stores.POSITION_BUCKET}.{stores.USAGE_STREAM}"

_GATEWAY_PUBLISHES = (
    *(subjects.GATEWAY_REPORTS, subjects.ACCESS_REPORTS),
    *(subjects.QUOTA, subjects.OWN_USAGE),
    *(_LANES_WRITE, _RESULTS_WRITE),
    *(f"headrace.scheduler.*.{call}" for call in ("settle", "lost", "locate")),
    *_messages(stores.RESULT_STREAM),
    # What came from a cache no leader has seen.
    *(subjects.USAGE, f"{_API}.STREAM.INFO.{stores.USAGE_STREAM}"),
    f"{_API}.STREAM.MSG.GET.{_kv(stores.POSITION_BUCKET)}",
    *(f"{subjects.RESPONSES}.*.*", *_messages(stores.RESPONSE_STREAM)),
    f"{_API}.STREAM.PURGE.{stores.RESPONSE_STREAM}",
    *(subjects.conversation_part("*"), *_messages(stores.CONVERSATION_STREAM)),
    f"{_API}.STREAM.PURGE.{stores.CONVERSATION_STREAM}",
    *_MODELS_READ,
    *(call for stream in _TABLE_STREAMS for call in _reading(stream)),
)
_GATEWAY_READS = (
    *(subjects.WORKER_REPORTS, subjects.LANE_REPORTS),
    *("headrace.gateway.*.notice", _DRAIN),
    f"{subjects.ENDED}.*",
)
_SCHEDULER_PUBLISHES = (
    subjects.LANE_REPORTS,
    "headrace.worker.*.*",
    "headrace.gateway.*.notice",
    *(_RESULTS_WRITE, f"{subjects.DEAD_LETTERS}.*"),
    *_consumers(stores.REQUEST_STREAM),
    f"{_API}.STREAM.INFO.{stores.REQUEST_STREAM}",
    *_messages(stores.RESULT_STREAM),
    *(subjects.USAGE, *_messages(stores.USAGE_STREAM)),
    *(f"$KV.{stores.POSITION_BUCKET}.{KEEPER}", *_messages(_kv(stores.POSITION_BUCKET))),
    _USAGE_NAME,
    *_LEASES_READ,
    *(f"$KV.{stores.LEASE_BUCKET}.{lease}" for lease in ("leader.*", stores.KEEPER_LEASE)),
    *(subjects.QUOTA_JOURNAL, *_messages(stores.QUOTA_JOURNAL), subjects.OWN_USAGE),
    f"{_API}.STREAM.PURGE.{stores.QUOTA_JOURNAL}",
    *_MODELS_READ,
    _CARDS_WRITE,
    *(
        call
        for table in (subjects.TENANTS_TABLE, subjects.KEYS_TABLE, subjects.PRICES_TABLE)
        for call in _reading(_kv(stores.bucket_of(table)))
    ),
)
_SCHEDULER_READS = (
    *(subjects.WORKER_REPORTS, subjects.GATEWAY_REPORTS, subjects.PREFIX_REPORTS),
    *("headrace.scheduler.*.*", subjects.QUOTA, subjects.USAGE_STORED, _DRAIN),
)
_WORKER_PUBLISHES = (
    *(subjects.WORKER_REPORTS, subjects.PREFIX_REPORTS),
    "headrace.scheduler.*.park",
    # Why without consumers: the broker delivers what one reads to any subject that its creator
    # names, so whoever can write a bucket and read it so could publish anywhere.
    *_messages(_kv(stores.CARD_BUCKET)),
    *_messages(_TOKENIZER_STREAM),
    _CARDS_WRITE,
    f"$O.{stores.TOKENIZER_BUCKET}.>",
    # Of a bundle that could not be stored whole.
    f"{_API}.STREAM.PURGE.{_TOKENIZER_STREAM}",
)
_WORKER_READS = ("headrace.worker.*.*", _DRAIN)
_CONTROL_PUBLISHES = (
    *_UPDATES,
    *(_row_writing(table) for table in subjects.TABLES),
    *(call for stream in _TABLE_STREAMS for call in _reading(stream)),
    subjects.ACCESS_REPORTS,  # of the calls to itself
    "headrace.scheduler.*.*",
    *(_DRAIN, "headrace.supervisor.*.drained"),
    *_messages(stores.DEAD_STREAM),
    *(*_messages(stores.USAGE_STREAM), *_messages(_kv(stores.POSITION_BUCKET))),
    *(_USAGE_NAME, f"{_API}.STREAM.PURGE.{stores.USAGE_STREAM}"),
    *(_LANES_WRITE, *_messages(stores.RESULT_STREAM)),
    *_LEASES_READ,
    f"$KV.{stores.LEASE_BUCKET}.control",
    # No other role: files are tenants' data, and only control knows whose.
    *(f"$O.{stores.FILE_BUCKET}.>", *_messages(_FILE_STREAM)),
    f"{_API}.STREAM.PURGE.{_FILE_STREAM}",
    *_MODELS_READ,
)
_CONTROL_READS = (
    *(subjects.ACCESS_REPORTS, subjects.WORKER_REPORTS, subjects.LANE_REPORTS),
    *(subjects.GATEWAY_REPORTS, subjects.OWN_USAGE, subjects.USAGE_STORED, _DRAIN),
)
_WEB_PUBLISHES = (
    subjects.ACCESS_REPORTS,
    *(call for stream in _TABLE_STREAMS for call in _reading(stream)),
)
_WEB_READS = (subjects.GATEWAY_REPORTS, _DRAIN)
