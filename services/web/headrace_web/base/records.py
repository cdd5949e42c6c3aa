"""What web stores of chats, as values. Times are Unix milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose conversations they are: another owner's are as good as absent."""

    tenant: str
    actor: str
    """As audit events name it: people/{id}, tenants/{tenant}/keys/{id}, or anonymous."""


class TurnState(StrEnum):
    """Of a turn. A person's is complete from the beginning."""

    PENDING = "pending"
    """Stored here, and not known to be stored by the mesh."""
    RUNNING = "running"
    """The mesh has it: it waits or is answered."""
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (TurnState.PENDING, TurnState.RUNNING)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A tree of turns, of which `leaf` ends the branch that is shown."""

    conversation_id: str
    owner: Owner
    title: str = ""
    """Empty: the first message is shown in its place."""
    system: str = ""
    """System prompt of all its turns."""
    model: str = ""
    """The model of the next question."""
    parameters: JsonObject = field(default_factory=dict)
    """Of the next question, as headrace.v1.SamplingParameters has them in JSON."""
    leaf: str = ""
    """Turn that the shown branch ends with; empty: there is no turn yet."""
    pinned: bool = False
    tags: tuple[str, ...] = ()
    scene: str = ""
    """Template that it began with."""
    create_ms: int = 0
    update_ms: int = 0
    delete_ms: int | None = None
    """When it was deleted; it can be restored for a time."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question or an answer. Turns are never changed but for the end of an answer; an edit is
    another turn with the same parent."""

    turn_id: str
    conversation_id: str
    parent: str
    """Turn that it follows; empty: it is a first one."""
    role: str
    """user or assistant."""
    content: str = ""
    state: TurnState = TurnState.COMPLETE
    create_ms: int = 0
    answer: Answer | None = None
    """Of an assistant's turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an answer is generated: all that is needed to generate it once more."""

    request_id: str
    model: str
    parameters: JsonObject = field(default_factory=dict)
    seed: str = ""
    """A uint64, as text: browsers' numbers end at 2**53."""
    caller: JsonObject = field(default_factory=dict)
    """Who has asked, as headrace.internal.v1.RowCaller in JSON."""
    reasoning: str = ""
    tool_calls: tuple[JsonObject, ...] = ()
    finish_reason: str = ""
    usage: JsonObject = field(default_factory=dict)
    error: JsonObject = field(default_factory=dict)
    """reason and message of a failure; empty: there was none."""
    end_ms: int | None = None
