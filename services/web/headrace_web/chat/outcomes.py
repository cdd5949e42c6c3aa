"""What a turn is once its request has ended. Pure."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.json_format import MessageToDict

from headrace.errors import HeadraceError
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import FinishReason
from headrace.v1.requests_pb2 import Request
from headrace_web.base.records import Turn, TurnState

_CANCELLED = "CANCELLED"


def ended(turn: Turn, request: Request) -> Turn:
    """Return the turn with the outcome of its request."""
    assert turn.answer is not None
    outcome = request.outcome
    answer = replace(
        turn.answer,
        usage=MessageToDict(outcome.usage, preserving_proto_field_name=True),
        end_ms=request.end_time.ToMilliseconds() or None,
    )
    content, state = "", TurnState.COMPLETE
    if outcome.choices:
        choice = outcome.choices[0]
        content = choice.text
        answer = replace(
            answer,
            reasoning=choice.reasoning,
            tool_calls=tuple(
                MessageToDict(call, preserving_proto_field_name=True) for call in choice.tool_calls
            ),
            finish_reason=_finish_reason(choice.finish_reason),
        )
    if outcome.HasField("error"):
        error = from_status(outcome.error)
        state = TurnState.CANCELLED if error.reason == _CANCELLED else TurnState.FAILED
        answer = replace(answer, error={"reason": error.reason, "message": error.message})
    return replace(turn, content=content, state=state, answer=answer)


def failed(turn: Turn, error: HeadraceError) -> Turn:
    """Return the turn as it is where the mesh has refused its request."""
    assert turn.answer is not None
    answer = replace(turn.answer, error={"reason": error.reason, "message": error.message})
    return replace(turn, state=TurnState.FAILED, answer=answer)


def cancelled(turn: Turn) -> Turn:
    """Return the turn as it is where it was stopped before the mesh had its request."""
    return replace(turn, state=TurnState.CANCELLED)


def _finish_reason(reason: FinishReason.ValueType) -> str:
    if reason not in FinishReason.values():
        return "unknown"  # of a later version
    return FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()
