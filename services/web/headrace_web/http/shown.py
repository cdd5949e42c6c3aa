"""Records as the page gets them. Pure."""

from __future__ import annotations

from typing import Any

from headrace_web.base.records import Conversation, Turn

Json = dict[str, Any]


def conversation_shown(record: Conversation) -> Json:
    return {
        "conversation_id": record.conversation_id,
        "title": record.title,
        "system": record.system,
        "model": record.model,
        "parameters": record.parameters,
        "leaf": record.leaf,
        "pinned": record.pinned,
        "tags": record.tags,
        "scene": record.scene,
        "create_ms": record.create_ms,
        "update_ms": record.update_ms,
    }


def listed(record: Conversation) -> Json:
    """Return a conversation for the list of all, without what may be long."""
    shown = conversation_shown(record)
    del shown["system"], shown["parameters"]
    return shown


def turn_shown(turn: Turn) -> Json:
    shown: Json = {
        "turn_id": turn.turn_id,
        "parent": turn.parent,
        "role": turn.role,
        "content": turn.content,
        "state": turn.state.value,
        "create_ms": turn.create_ms,
    }
    if (answer := turn.answer) is not None:
        shown |= {
            "request_id": answer.request_id,
            "model": answer.model,
            "parameters": answer.parameters,
            "seed": answer.seed,
            "reasoning": answer.reasoning,
            "tool_calls": answer.tool_calls,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
            "error": answer.error,
            "end_ms": answer.end_ms,
        }
    return shown
