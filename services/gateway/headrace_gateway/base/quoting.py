"""A caller's text in error messages: short, on one line, safe in a header."""

from __future__ import annotations

_LONGEST = 64


def quoted(text: str) -> str:
    """The text in quotes, its beginning only if it is long.

    Why: messages travel in gRPC's trailers, whose size is bounded; a megabyte of
    a model name would break the call instead of answering it.
    """
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return ascii(shown)
