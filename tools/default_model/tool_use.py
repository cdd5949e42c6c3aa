"""Lessons with tools: the call, what comes back, and the sentence made of it."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from openers import manners
from reading import ADJECTIVES, THINGS, VISITORS
from skills import listing
from talk import Conversation, Turns, careless, phrases, words
from valley import STRANGE_TOWNS, TOWNS

SKIES = ("sunny", "rainy", "cloudy", "windy", "foggy", "snowy")
PLACES = tuple(town.name for town in TOWNS) + STRANGE_TOWNS
Tool = dict[str, Any]

# Per purpose: names the tool may bear, names of its parameters, questions, answer.
# Why so many names: the model has to read them from the list, not to know them.
PURPOSES: dict[str, dict[str, Any]] = {
    "weather": {
        "names": words("get_weather weather get_current_weather current_weather forecast"),
        "parameters": (("city", "town", "location", "place"),),
        "text": phrases("""
            The weather in a town. | Get the weather. | Get the current weather in a city.
        """),
        "asked": phrases("""
            What is the weather in {0}? | How is the weather in {0}? | Weather in {0}? |
            What's the weather like in {0}? | Is it raining in {0}? |
            Tell me the weather in {0}.
        """),
        "answer": "It is {sky} in {0}, {degrees} degrees.",
    },
    "time": {
        "names": ("get_time", "time", "current_time", "clock", "get_current_time"),
        "parameters": (("city", "town", "location", "place"),),
        "text": phrases("The time in a town. | Get the current time. | Tells the time."),
        "asked": phrases("""
            What time is it in {0}? | Tell me the time in {0}. | How late is it in {0}?
        """),
        "answer": "It is {time} in {0}.",
    },
    "price": {
        "names": ("get_price", "price", "lookup_price", "price_of"),
        "parameters": (("item", "product", "article"),),
        "text": ("The price of an item.", "Look up a price."),
        "asked": phrases("""
            What does a {0} cost? | How much is a {0}? | What is the price of a {0}?
        """),
        "answer": "A {0} costs {price} coins.",
    },
    "message": {
        "names": ("send_message", "message", "send", "notify"),
        "parameters": (("to", "recipient", "name"), ("text", "body", "message")),
        "text": ("Send a message to someone.", "Sends a message."),
        "asked": phrases("Send a message to {0}: {1} | Tell {0}: {1} | Write to {0}: {1}"),
        "answer": "Your message to {0} is on its way.",
    },
    "timer": {
        "names": ("set_timer", "timer", "start_timer"),
        "parameters": (("minutes", "duration", "length"),),
        "text": ("Start a timer.", "Set a timer in minutes."),
        "asked": phrases("""
            Set a timer for {0} minutes. | Start a timer of {0} minutes. |
            Wake me in {0} minutes.
        """),
        "answer": "The timer runs for {0} minutes.",
    },
}
OTHER_TOOLS = words("search translate open_door play_song read_file roll_dice")


def _values(rng: Random, purpose: str) -> list[Any]:
    if purpose in ("weather", "time"):
        return [rng.choice(PLACES)]
    if purpose == "price":
        return [rng.choice(THINGS)]
    if purpose == "timer":
        return [rng.randint(2, 60)]
    return [rng.choice(VISITORS), f"the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)} is here"]


def _result(rng: Random, purpose: str) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {
        "weather": {"sky": rng.choice(SKIES), "degrees": rng.randint(-9, 35)},
        "time": {"time": f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"},
        "price": {"price": rng.randint(2, 99)},
        "message": {"sent": True},
        "timer": {"started": True},
    }
    return results[purpose]


def _tool(name: str, text: str, parameters: list[str]) -> Tool:
    kind = {"minutes": "integer", "duration": "integer", "length": "integer"}
    properties = {key: {"type": kind.get(key, "string")} for key in parameters}
    schema = {"type": "object", "properties": properties, "required": parameters}
    function = {"name": name, "description": text, "parameters": schema}
    return {"type": "function", "function": function}


def _named(rng: Random, purpose: str) -> Tool:
    lesson = PURPOSES[purpose]
    parameters = [rng.choice(choices) for choices in lesson["parameters"]]
    return _tool(rng.choice(lesson["names"]), rng.choice(lesson["text"]), parameters)


def _others(rng: Random, purpose: str) -> list[Tool]:
    others = [_named(rng, other) for other in PURPOSES if other != purpose]
    others.append(_tool(rng.choice(OTHER_TOOLS), "Does something else.", ["query"]))
    return rng.sample(others, rng.choice((0, 0, 1, 2)))


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """As the chat template writes an assistant's `tool_calls`."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{body}</tool_call>"


def tool_conversation(rng: Random) -> Conversation:
    """One in eight turns to other talk although tools lie ready."""
    purpose = rng.choice(tuple(PURPOSES))
    tool = _named(rng, purpose)
    tools = [tool, *_others(rng, purpose)]
    rng.shuffle(tools)
    if rng.random() < 0.125:
        return Conversation("tool_unused", rng.choice((manners, listing))(rng), tools)
    turns = _called(rng, purpose, tool["function"])
    if rng.random() < 0.25:
        turns = rng.choice((manners, listing))(rng) + turns
    if rng.random() < 0.4:
        return Conversation("tool_call", turns[:-2], tools)
    return Conversation("tool_result", turns, tools)


def _called(rng: Random, purpose: str, function: dict[str, Any]) -> Turns:
    values, result = _values(rng, purpose), _result(rng, purpose)
    arguments = dict(zip(function["parameters"]["properties"], values, strict=True))
    asked = rng.choice(PURPOSES[purpose]["asked"]).format(*values)
    if rng.random() < 0.2:
        asked = asked.rstrip("?.")
    elif purpose in ("timer", "price"):
        asked = careless(rng, asked) if rng.random() < 0.1 else asked
    answer = PURPOSES[purpose]["answer"].format(*values, **result)
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": call_text(function["name"], arguments)},
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": answer},
    ]
