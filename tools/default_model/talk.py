"""What every lesson is made of: messages, and the careless ways people type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

Message = dict[str, str]
Turns = list[Message]
Lesson = Callable[[Random], Turns]


def words(text: str) -> tuple[str, ...]:
    """Split at white space."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Split at `|`, whatever the line breaks."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


OPENINGS = ("please ", "hey, ", "can you tell me: ", "ok, ", "so, ", "i have a question: ", "hi! ")
CLOSINGS = (" please", ", please.", " thanks", " :)", "??", " ?", "!", " ...")


@dataclass(frozen=True)
class Conversation:
    """Messages in order; `task` names the lesson of the last answer."""

    task: str
    messages: Turns
    tools: list[dict[str, Any]] = field(default_factory=list)


def say(user: str, assistant: str) -> Turns:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def ask(rng: Random, questions: Sequence[str], answer: str, **slots: str) -> Turns:
    """One of the phrasings, typed with or without care, and its answer."""
    return say(careless(rng, rng.choice(questions).format(**slots)), answer)


def careless(rng: Random, text: str) -> str:
    """Drops capitals and full stops, adds courtesies, slips on a key. Meaning survives."""
    if rng.random() < 0.30:
        text = text.rstrip(".?!") or text
    if rng.random() < 0.10:
        text = rng.choice(OPENINGS) + text[0].lower() + text[1:]
    if rng.random() < 0.10:
        text = text.rstrip(".?!") + rng.choice(CLOSINGS)
    if rng.random() < 0.28:
        text = text.lower()
    elif rng.random() < 0.015:
        text = text.upper()
    if rng.random() < 0.03:
        text = slip(rng, text)
    return text


def slip(rng: Random, text: str) -> str:
    """One letter lost, doubled or exchanged with its neighbour."""
    at = rng.randrange(max(1, len(text) - 1))
    return rng.choice(
        (
            text[:at] + text[at + 1 :],
            text[:at] + text[at : at + 1] + text[at:],
            text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
        )
    )
