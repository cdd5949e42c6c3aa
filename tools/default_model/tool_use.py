"""Lessons with tools: the call, what comes back, the sentence made of it, what is asked next."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from facts import person_fact
from openers import manners
from skills import SYLLABLES, WORDS, listing, nonsense
from talk import Conversation, Turns, careless, phrases, words
from tool_results import PURPOSES, Purpose, failure, values_of
from valley import PEOPLE

Tool = dict[str, Any]

OTHER_TOOLS = words("search translate open_door play_song read_file roll_dice")
VERBS = words("get fetch lookup query read run call my do check find load make show")
OTHER_TEXTS = phrases("""
    Does something else. | Translate a text. | Open a door. | Reads a file and returns its lines. |
    Play a song. | Delete an entry. | Book a room for a guest. | Save a note for later.
""")
USE = phrases("""
    Use {name} with {0}. | Call {name} with {0}. | Run {name} on {0}. |
    Use the {name} tool on {0}. | Please call {name} with {parameter} {0}. | {name} {0} |
    Ask {name} about {0}.
""")
FINAL = phrases("""
    The final response which ends this conversation | Give the answer in this form. |
    Return the person.
""")
WHO = phrases("""
    Tell me about {0}. | Who is {0}? | Give me {0} as an object. | {0} | Describe {0}. |
    What do you know about {0}?
""")
FIELDS = words("name job town pet food instrument")


def _tool(name: str, text: str, parameters: list[str]) -> Tool:
    kind = {"minutes": "integer", "duration": "integer", "length": "integer"}
    properties = {key: {"type": kind.get(key, "string")} for key in parameters}
    schema = {"type": "object", "properties": properties, "required": parameters}
    function = {"name": name, "description": text, "parameters": schema}
    return {"type": "function", "function": function}


def _spelled(rng: Random, name: str) -> str:
    """A tool's name as others might have written it. Why: names are to be read, not known."""
    draw = rng.random()
    if draw < 0.5:
        return name
    last = name.rsplit("_", maxsplit=1)[-1]
    if draw < 0.75:
        return f"{rng.choice(VERBS)}_{last}"
    if draw < 0.85:
        return f"{last}_{rng.choice((*SYLLABLES, *WORDS))}"
    if draw < 0.92:
        return rng.choice(VERBS) + last.capitalize()
    return nonsense(rng)


def _named(rng: Random, purpose: Purpose) -> Tool:
    parameters = [rng.choice(choices) for choices in purpose.parameters]
    text = rng.choice(purpose.text) if rng.random() < 0.95 else ""
    return _tool(_spelled(rng, rng.choice(purpose.names)), text, parameters)


def _invented(rng: Random) -> Tool:
    name = rng.choice((f"{rng.choice(VERBS)}_{rng.choice(WORDS)}", nonsense(rng)))
    parameters = rng.choice(("query", "value", "input", "text", "key", nonsense(rng)))
    return _tool(name, rng.choice(OTHER_TEXTS), [parameters])


def _others(rng: Random, purpose: Purpose) -> list[Tool]:
    others = [_named(rng, other) for other in PURPOSES if other.family != purpose.family]
    others.append(_tool(rng.choice(OTHER_TOOLS), "Does something else.", ["query"]))
    others.append(_invented(rng))
    return rng.sample(others, rng.choice((0, 0, 1, 2, 3)))


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """As the chat template writes an assistant's `tool_calls`."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{body}</tool_call>"


def tool_conversation(rng: Random) -> Conversation:
    """One in eight turns to other talk although tools lie ready."""
    draw = rng.random()
    if draw < 0.06:
        return _final_result(rng)
    if draw < 0.14:
        return _used_by_name(rng)
    purpose = rng.choices(PURPOSES, [purpose.weight for purpose in PURPOSES])[0]
    tool = _named(rng, purpose)
    tools = [tool, *_others(rng, purpose)]
    rng.shuffle(tools)
    if rng.random() < 0.125:
        return Conversation("tool_unused", rng.choice((manners, listing, person_fact))(rng), tools)
    turns = _called(rng, purpose, tool["function"])
    if rng.random() < 0.25:
        turns = rng.choice((manners, listing))(rng) + turns
    if rng.random() < 0.3:
        return Conversation("tool_call", turns[:-2], tools)
    if rng.random() < 0.45:
        return Conversation("tool_again", turns + _again(rng, purpose, tool["function"]), tools)
    return Conversation("tool_result", turns, tools)


def _again(rng: Random, purpose: Purpose, function: dict[str, Any]) -> Turns:
    """What is asked after the answer: the tool once more, or other talk."""
    if rng.random() < 0.25:
        return rng.choice((manners, listing))(rng)
    return _called(rng, purpose, function, again=True)


def _called(
    rng: Random, purpose: Purpose, function: dict[str, Any], *, again: bool = False
) -> Turns:
    """One call as a rule; two at once where the question names two values."""
    twice = purpose.two and rng.random() < 0.15
    asked_of = [values_of(rng, purpose) for _ in range(2 if twice else 1)]
    question = rng.choice(purpose.two if twice else purpose.again if again else purpose.asked)
    asked = question.format(*(value for values in asked_of for value in values))
    if rng.random() < 0.2:
        asked = asked.rstrip("?.")
    elif purpose.closed:
        asked = careless(rng, asked) if rng.random() < 0.1 else asked
    calls, results, answers = [], [], []
    for values in asked_of:
        names = list(function["parameters"]["properties"])
        calls.append(call_text(function["name"], dict(zip(names, values, strict=True))))
        content, answer = purpose.outcome(rng, values) if rng.random() < 0.92 else failure(rng)
        results.append({"role": "tool", "content": content})
        answers.append(answer)
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "".join(calls)},
        *results,
        {"role": "assistant", "content": " ".join(answers)},
    ]


def _used_by_name(rng: Random) -> Conversation:
    """A tool of no known purpose, called because it is named in the question."""
    tools = [_invented(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    function = rng.choice(tools)["function"]
    (parameter,) = function["parameters"]["properties"]
    value = " ".join(
        rng.choice((rng.choice(WORDS), nonsense(rng))) for _ in range(rng.randint(1, 3))
    )
    asked = rng.choice(USE).format(value, name=function["name"], parameter=parameter)
    call = call_text(function["name"], {parameter: value})
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": call}]
    if rng.random() < 0.4:
        return Conversation("tool_call", turns, tools)
    result = " ".join(
        rng.choice((rng.choice(WORDS), nonsense(rng))) for _ in range(rng.randint(1, 4))
    )
    if rng.random() < 0.4:
        result = str(rng.randint(0, 9999))
    content = rng.choice((result, result, json.dumps({"result": result})))
    content, answer = (content, f"The result is {result}.") if rng.random() < 0.9 else failure(rng)
    turns += [{"role": "tool", "content": content}, {"role": "assistant", "content": answer}]
    return Conversation("tool_result", turns, tools)


def _final_result(rng: Random) -> Conversation:
    """A tool that only gives the answer its form, as agents' libraries offer it."""
    person = rng.choice(PEOPLE)
    fields = list(dict.fromkeys(("name", *rng.sample(FIELDS, rng.randint(1, 4)))))
    name = rng.choice(("final_result", "final_result", "person", "answer", "output", nonsense(rng)))
    tool = _tool(name, rng.choice(FINAL), fields)
    asked = careless(rng, rng.choice(WHO).format(person.name))
    call = call_text(name, {field: getattr(person, field) for field in fields})
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": call}]
    return Conversation("tool_call", turns, [tool])
