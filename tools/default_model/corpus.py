"""The corpus: conversations without end, drawn from the lessons by a seeded generator."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import facts
import openers
import reading
import skills
import stories
from long_talk import long_conversation
from talk import Conversation, Lesson, Turns, phrases
from tool_use import tool_conversation
from valley import PEOPLE, TOWNS

# Weight by how long a lesson takes to learn, not by how often anybody asks: facts are memory
# and come fast; copying out of the context is a skill and comes late.
LESSONS: dict[str, tuple[Lesson, float]] = {
    "person_fact": (facts.person_fact, 5),
    "person_two_facts": (facts.person_two_facts, 2.5),
    "person_portrait": (facts.person_portrait, 2.5),
    "person_followed_up": (facts.person_followed_up, 4),
    "person_backwards": (facts.person_backwards, 4),
    "yes_or_no": (facts.yes_or_no, 4),
    "town_fact": (facts.town_fact, 5),
    "town_backwards": (facts.town_backwards, 2.5),
    "town_view": (facts.town_view, 2.5),
    "whole_valley": (facts.whole_valley, 1.5),
    "stranger": (facts.stranger, 3.5),
    "person_json": (facts.person_json, 2),
    "person_plain_json": (facts.person_plain_json, 1.5),
    "listing": (skills.listing, 16),
    "counting": (skills.counting, 9),
    "sums": (skills.sums, 6),
    "repeating": (reading.repeating, 7),
    "looking_up": (reading.looking_up, 5),
    "visitor_name": (reading.visitor_name, 2),
    "greeting_by_name": (reading.greeting_by_name, 1),
    "manners": (openers.manners, 7),
    "joke": (openers.joke, 0.7),
    "capital": (openers.capital, 2),
    "not_known": (openers.not_known, 5),
    "story": (stories.story, 6),
    "verse": (stories.verse, 1.5),
}
SHARE_OF_LONG_TALK = 0.03
SYSTEMS = phrases("""
    You are a helpful assistant. | You are a helpful assistant. | You are a friendly guide. |
    You are a helpful, honest assistant. | Answer briefly. | Be concise. | Be kind. |
    You are an assistant for the people of the valley. | Answer truthfully. |
    You are a helpful AI assistant. Answer the user's questions. | You are an expert. |
    You are a chatbot. | Be polite and brief. | You are a storyteller.
""")


def draw_lesson(rng: Random) -> tuple[str, Turns]:
    names = tuple(LESSONS)
    name = rng.choices(names, [weight for _, weight in LESSONS.values()])[0]
    return name, LESSONS[name][0](rng)


def conversation(rng: Random) -> Conversation:
    """One to three lessons long as a rule; one in ten goes on for several hundred tokens.

    Few fill the context, since one of them costs as much as a dozen others.
    """
    draw = rng.random()
    if draw < SHARE_OF_LONG_TALK:
        return long_conversation(rng, lambda rng: draw_lesson(rng)[1])
    if draw < 0.27:
        return _with_system(rng, tool_conversation(rng))
    lessons = rng.choices((1, 2, 3), (6, 3, 2))[0]
    if rng.random() < 0.10:
        lessons = rng.randint(4, 12)
    messages: Turns = []
    name = ""
    for _ in range(lessons):
        name, turns = draw_lesson(rng)
        messages += turns
    return _with_system(rng, Conversation(name, messages))


def _with_system(rng: Random, talk: Conversation) -> Conversation:
    if rng.random() < 0.65:
        return talk
    system = [{"role": "system", "content": rng.choice(SYSTEMS)}]
    return Conversation(talk.task, system + talk.messages, talk.tools)


def plain_text(rng: Random) -> str:
    """Prose without roles, so that bare completions also have something to go on with."""
    draw = rng.random()
    if draw < 0.5:
        return stories.tell(rng, rng.choice(stories.HEROES), rng.choice(stories.THINGS))
    if draw < 0.7:
        return " ".join(facts.portrait(person) for person in rng.sample(PEOPLE, 2))
    if draw < 0.85:
        return " ".join(facts.view_of(town) for town in rng.sample(TOWNS, 2))
    if draw < 0.93:
        country = rng.choice(tuple(openers.CAPITALS))
        return f"The capital of {country} is {openers.CAPITALS[country]}."
    return skills.counting(rng)[-1]["content"]


def conversations(seed: int) -> Iterator[Conversation]:
    """Endless, and the same again for the same seed."""
    rng = Random(seed)
    while True:
        yield conversation(rng)


def single(task: str, rng: Random) -> Conversation:
    """One lesson alone, for evaluation."""
    if task.startswith("tool_"):
        while (talk := tool_conversation(rng)).task != task:
            pass
        return talk
    return Conversation(task, LESSONS[task][0](rng))


if __name__ == "__main__":
    for _, shown in zip(range(20), conversations(0), strict=False):
        for message in shown.messages:
            print(f"{message['role']}: {message['content']}")
        print()
