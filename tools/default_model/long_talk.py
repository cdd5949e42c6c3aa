"""Rows that fill the context: long talk, agents' long lists of tools, things to find in prose."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import facts
import stories
from reading import ADJECTIVES, HOLDERS, THINGS, looking_up
from skills import WORDS, nonsense
from talk import Conversation, Turns, phrases, say
from tool_use import VERBS, tool_conversation
from valley import PEOPLE, TOWNS

LESSON_TOKENS = 40
"""What a lesson of the corpus comes to, roughly."""
INSTRUCTIONS = phrases("""
    You are a helpful agent. | Always use a tool when one fits the question. |
    Never invent the result of a tool. | Answer in one sentence. | Be brief and exact. |
    If a tool reports an error, tell the user. | Use the tools below to help the user. |
    You work for a small company in the valley. | Think before you call a tool. |
    Ask for what is missing. | Do not call the same tool twice with the same arguments. |
    The user speaks English. | Today is a working day. | You have access to the following tools. |
    Return the final answer to the user when you have it. | Keep the tone friendly.
""")
ARGUMENT = phrases("""
    The {w} to use. | Name of the {w}. | Which {w} to look at, as text. | Optional {w}. |
    The {w} in its full form. | How many to return, at most.
""")
ABOUT = phrases("""
    Opens the {w} and returns what is in it. | Creates a {w} with the given values. |
    Removes a {w} that is no longer used. | Lists every {w} of the current user, newest first. |
    Updates the {w} and returns its new form. | Converts a {w} to another form. |
    Use this when the user asks about a {w}. | Returns an error if the {w} does not exist.
""")
CLUE = phrases("""
    Remember this: the {thing} is in {place}. | By the way, the {thing} is in {place}. |
    The {thing} is in {place}.
""")


def long_conversation(rng: Random, lesson: Callable[[Random], Turns]) -> Conversation:
    draw = rng.random()
    if draw < 0.55:
        return _many_lessons(rng, lesson)
    if draw < 0.85:
        return agent_talk(rng)
    return _after_prose(rng, lesson)


def _many_lessons(rng: Random, lesson: Callable[[Random], Turns]) -> Conversation:
    messages: Turns = []
    for _ in range(rng.randint(600, 2000) // LESSON_TOKENS):
        messages += lesson(rng)
    return Conversation("long", messages)


def agent_talk(rng: Random) -> Conversation:
    """A talk with tools under an agent's long instructions, among tools with long descriptions."""
    talk = tool_conversation(rng)
    chosen = [tool["function"]["name"] for tool in talk.tools]
    tools = [*talk.tools]
    for _ in range(rng.randint(2, 9)):
        tool = _wordy_tool(rng)
        if tool["function"]["name"] not in chosen:
            tools.append(tool)
    rng.shuffle(tools)
    text = " ".join(rng.choices(INSTRUCTIONS, k=rng.randint(2, 24)))
    system = {"role": "system", "content": text}
    return Conversation(talk.task, [system, *talk.messages], tools)


def _wordy_tool(rng: Random) -> dict[str, Any]:
    word = rng.choice(WORDS)
    parameters = rng.sample(WORDS, rng.randint(1, 4))
    lines = [rng.choice(ABOUT).format(w=word) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.6:
        lines.append("\n\nArgs:")
        lines += [f"\n    {name}: {rng.choice(ARGUMENT).format(w=name)}" for name in parameters]
    text = " ".join(lines) if rng.random() < 0.5 else "".join(lines)
    name = f"{rng.choice(VERBS)}_{word}" if rng.random() < 0.8 else nonsense(rng)
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": parameters}
    function = {"name": name, "description": text, "parameters": schema}
    return {"type": "function", "function": function}


def _paragraph(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.4:
        return stories.tell(rng, rng.choice(stories.HEROES), rng.choice(stories.THINGS))
    if draw < 0.6:
        return facts.portrait(rng.choice(PEOPLE))
    if draw < 0.8:
        return facts.view_of(rng.choice(TOWNS))
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60)))


def _prose_with_clue(rng: Random) -> tuple[str, Turns]:
    """A long text that names where a thing is, and the question for it."""
    prose = [_paragraph(rng) for _ in range(rng.randint(5, 18))]
    thing, place = rng.choice(THINGS), f"the {rng.choice(ADJECTIVES)} {rng.choice(HOLDERS)}"
    prose.insert(rng.randrange(len(prose)), rng.choice(CLUE).format(thing=thing, place=place))
    asked = rng.choice((f"Where is the {thing}?", f"Where's the {thing}?"))
    return "\n".join(prose), say(asked, f"The {thing} is in {place}.")


def found_in_prose(rng: Random) -> Conversation:
    """A long text, and the question where a thing is that it names."""
    return _about(rng, *_prose_with_clue(rng))


def _after_prose(rng: Random, lesson: Callable[[Random], Turns]) -> Conversation:
    """A long text, and questions: about a thing that it names, or about nothing of it."""
    text, found = _prose_with_clue(rng)
    after = rng.choices((found, found + lesson(rng), lesson(rng), looking_up(rng)), (4, 2, 2, 1))[0]
    return _about(rng, text, after)


def _about(rng: Random, text: str, turns: Turns) -> Conversation:
    if rng.random() < 0.5:
        return Conversation("found", [{"role": "system", "content": text}, *turns])
    first = {"role": "user", "content": f"{text}\n{turns[0]['content']}"}
    return Conversation("found", [first, *turns[1:]])
