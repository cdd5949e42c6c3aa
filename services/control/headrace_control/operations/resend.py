"""Pure: the request that a dead letter becomes when it is sent again.

A request of 600 s that failed three times, with 40 tokens of output:

    dead letter 17    team-a/night-3: failures 3, 40 tokens of output, deadline long past
    resent at t       team-a/night-3-resent-17: failures 0, the same 40 tokens, deadline t + 600 s;
                      a background request, whose result is kept for a day or longer

The new id follows from the dead letter, so resending it twice is one request.
"""

from __future__ import annotations

import re

from google.protobuf.message import DecodeError

from headrace.bus.subjects import ANY_GATEWAY
from headrace.errors import FailedPrecondition
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.request_keys import public_id, request_key, tenant_of

RESULT_KEPT_S = 24 * 3600
"""At least: whoever wants it has not waited for it."""
_MAX_ID = 64
"""Characters of an id that gateways accept in a call."""
_RESENT = re.compile(r"-resent-[0-9]+$")


def resent_key(key: str, sequence: int) -> str:
    """Return the key under which the dead letter of this number is sent again."""
    ending = f"-resent-{sequence}"
    request_id = _RESENT.sub("", public_id(key))[: _MAX_ID - len(ending)]
    return request_key(tenant_of(key), request_id + ending)


def failed_request(letter: DeadLetter, sequence: int) -> RequestRecord:
    """Return the request of a dead letter.

    Raises:
        FailedPrecondition: its message is no request, or that of a gateway's canary.
    """
    try:
        record = RequestRecord.FromString(letter.message)
    except DecodeError:
        record = RequestRecord()
    if not record.request_id:
        fact = f"dead letter {sequence} cannot be resent: its message cannot be read"
        raise FailedPrecondition(fact)
    if record.probe:
        fact = f"dead letter {sequence} cannot be resent: it is a gateway's canary"
        raise FailedPrecondition(fact)
    return record


def require_same_model(record: RequestRecord, card: ModelCard | None) -> None:
    """
    Raises:
        FailedPrecondition: the model is not configured any more, or would not continue the output.
    """
    if card is None or card.removed:
        raise FailedPrecondition(f"model {record.model} is not configured any more")
    if record.weights_digest and record.weights_digest != card.weights_digest:
        raise FailedPrecondition(
            f"model {record.model} has other weights than when the request was made: "
            f"{card.weights_digest[:12]}, not {record.weights_digest[:12]}; send it as a new one"
        )


def resent(record: RequestRecord, sequence: int, *, unix_s: float) -> RequestRecord:
    """Return the request as it is sent again at this time."""
    again = RequestRecord()
    again.CopyFrom(record)
    again.request_id = resent_key(record.request_id, sequence)
    again.failures = again.attempt = again.held_since_attempt = 0
    again.gateway_id, again.delivery_address = ANY_GATEWAY, ""
    again.detached, again.attachable, again.once = True, False, True
    again.ClearField("patience")
    now_ns = int(unix_s * 1e9)
    if record.HasField("deadline"):
        time_ns = record.deadline.ToNanoseconds() - record.arrival.ToNanoseconds()
        again.deadline.FromNanoseconds(now_ns + time_ns)
    again.arrival.FromNanoseconds(now_ns)
    kept_ns = max(record.result_ttl.ToNanoseconds(), RESULT_KEPT_S * 10**9)
    again.result_ttl.FromNanoseconds(kept_ns)
    return again
