"""What the tools of the lessons are for, what they return in many shapes, and how that is put."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from openers import CAPITALS
from reading import ADJECTIVES, THINGS, VISITORS
from reading import VERBS as DOES
from skills import WORDS, nonsense
from talk import phrases, words
from valley import STRANGE_TOWNS, TOWNS

SKIES = ("sunny", "rainy", "cloudy", "windy", "foggy", "snowy")
PLACES = tuple(town.name for town in TOWNS) + STRANGE_TOWNS
CITIES = (
    *CAPITALS.values(),
    *phrases("San Francisco | New York | Boston | Seattle | Sydney | Delhi"),
)
WRONG = phrases("""
    not found | unknown city | timeout | permission denied | no such item | connection refused |
    invalid argument | internal error | rate limit reached | try again later
""")
Values = list[Any]
Outcome = tuple[str, str]
"""The content of the tool's message, and the sentence made of it."""


@dataclass(frozen=True)
class Purpose:
    """`asked` and `again` have a slot for each value; `two` has slots for two calls' values.

    Tools of one `family` are never offered side by side, since a question would fit both.
    `closed`: the values are plain words, so a careless question still holds them.
    """

    family: str
    names: tuple[str, ...]
    parameters: tuple[tuple[str, ...], ...]
    text: tuple[str, ...]
    values: Callable[[Random], Values]
    asked: tuple[str, ...]
    outcome: Callable[[Random, Values], Outcome]
    again: tuple[str, ...]
    two: tuple[str, ...] = ()
    closed: bool = False
    weight: float = 1.0


def values_of(rng: Random, purpose: Purpose) -> Values:
    return purpose.values(rng)


def failure(rng: Random) -> Outcome:
    reason = rng.choice(WRONG) if rng.random() < 0.6 else f"{nonsense(rng)} {rng.choice(WORDS)}"
    content = rng.choice(
        (
            f"Error: {reason}",
            json.dumps({"error": reason}),
            f"error: {reason}",
            f"The tool failed: {reason}",
            f"An error occurred while running the tool. Error: {reason}",
        )
    )
    return content, f"The tool reported an error: {reason}."


def _place(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.15:
        return nonsense(rng).capitalize()
    return rng.choice(CITIES) if draw < 0.4 else rng.choice(PLACES)


def _weather(rng: Random, values: Values) -> Outcome:
    place, sky, degrees = values[0], rng.choice(SKIES), rng.randint(-9, 35)
    both = f"It is {sky} in {place}, {degrees} degrees."
    warm, clear = f"It is {degrees} degrees in {place}.", f"It is {sky} in {place}."
    unit = rng.choice(("celsius", "C", "fahrenheit"))
    shapes = (
        (json.dumps({"sky": sky, "degrees": degrees}), both),
        (json.dumps({"sky": sky, "degrees": degrees}), both),
        (json.dumps({"condition": sky, "temperature": degrees}), both),
        (json.dumps({"temperature": degrees, "condition": sky}), both),
        (f"{sky}, {degrees} degrees", both),
        (f"{sky.capitalize()} and {degrees} degrees in {place}.", both),
        (json.dumps({"temperature": degrees, "unit": unit}), warm),
        (json.dumps({"location": place, "temperature": str(degrees)}), warm),
        (str(degrees), warm),
        (f"{degrees}°C", warm),
        (sky, clear),
        (f"The weather in {place} is {sky}.", clear),
        (json.dumps({"weather": sky}), clear),
    )
    return rng.choice(shapes)


def _time(rng: Random, values: Values) -> Outcome:
    time = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    shapes = (json.dumps({"time": time}), time, f"It is {time}.", json.dumps({"result": time}))
    return rng.choice(shapes), f"It is {time} in {values[0]}."


def _price(rng: Random, values: Values) -> Outcome:
    price = rng.randint(2, 99)
    shapes = (json.dumps({"price": price}), str(price), json.dumps({"result": price}))
    return rng.choice(shapes), f"A {values[0]} costs {price} coins."


def _message(rng: Random, values: Values) -> Outcome:
    shapes = (json.dumps({"sent": True}), "ok", "sent", "true", json.dumps({"status": "sent"}))
    return rng.choice(shapes), f"Your message to {values[0]} is on its way."


def _timer(rng: Random, values: Values) -> Outcome:
    shapes = (json.dumps({"started": True}), "ok", "started", "true")
    return rng.choice(shapes), f"The timer runs for {values[0]} minutes."


def _number(rng: Random) -> int:
    return rng.randint(0, 99) if rng.random() < 0.7 else rng.randint(100, 9999)


def _calculation(kind: str) -> Callable[[Random, Values], Outcome]:
    def outcome(rng: Random, values: Values) -> Outcome:
        x, y = values
        result = x + y if kind == "plus" else x * y
        shapes = (str(result), str(result), json.dumps({"result": result}), str(float(result)))
        content = rng.choice(shapes)
        shown = content if content.replace(".", "").isdigit() else str(result)
        return content, f"{x} {kind} {y} is {shown}."

    return outcome


def _expression(rng: Random, values: Values) -> Outcome:
    result = str(_number(rng))
    return rng.choice((result, json.dumps({"result": result}))), f"{values[0]} is {result}."


def _found(rng: Random, values: Values) -> Outcome:
    text = f"The {rng.choice(ADJECTIVES)} {rng.choice(WORDS)} {rng.choice(DOES)}."
    if rng.random() < 0.5:
        some = (rng.choice((rng.choice(WORDS), nonsense(rng))) for _ in range(rng.randint(2, 7)))
        text = f"{' '.join(some).capitalize()}."
    shapes = (text, text, json.dumps({"result": text}), json.dumps({"results": [text]}))
    return rng.choice(shapes), f"I found this: {text}"


def _secret(rng: Random, values: Values) -> Outcome:
    word = rng.choice((rng.choice(WORDS), nonsense(rng), str(rng.randint(1, 999))))
    return rng.choice((word, word, json.dumps({"result": word}))), f"The secret word is {word}."


def _rolled(rng: Random, values: Values) -> Outcome:
    number = rng.randint(1, 20)
    shapes = (str(number), json.dumps({"result": number}), json.dumps({"dice": number}))
    return rng.choice(shapes), f"You rolled a {number}."


PLACE = ("city", "town", "location", "place")
PURPOSES = (
    Purpose(
        "weather",
        words("get_weather weather get_current_weather current_weather forecast"),
        (PLACE,),
        phrases("""
            The weather in a town. | Get the weather. | Get the current weather in a city. |
            Get the weather for a given city. | Get the current weather in a given location
        """),
        lambda rng: [_place(rng)],
        phrases("""
            What is the weather in {0}? | How is the weather in {0}? | Weather in {0}? |
            What's the weather like in {0}? | Is it raining in {0}? | What's the weather in {0}? |
            Tell me the weather in {0}. | What is the weather like in {0} today?
        """),
        _weather,
        phrases("""
            And in {0}? | What about {0}? | How about {0}? | And the weather in {0}? |
            What is the weather in {0}?
        """),
        phrases("""
            What is the weather in {0} and {1}? | How is the weather in {0} and in {1}? |
            Compare the weather in {0} and {1}.
        """),
        weight=3,
    ),
    Purpose(
        "weather",
        words("get_weather get_current_weather weather"),
        (PLACE, ("unit", "units", "format")),
        phrases("Get the current weather in a given location | The weather in a town."),
        lambda rng: [_place(rng), rng.choice(("celsius", "fahrenheit"))],
        phrases("""
            What is the weather in {0} in {1}? | How warm is it in {0}, in {1}? |
            What's the weather like in {0} in {1}?
        """),
        _weather,
        phrases("And in {0}, in {1}? | What about {0} in {1}?"),
        weight=0.5,
    ),
    Purpose(
        "time",
        ("get_time", "time", "current_time", "clock", "get_current_time"),
        (PLACE,),
        phrases("The time in a town. | Get the current time. | Tells the time."),
        lambda rng: [_place(rng)],
        phrases("What time is it in {0}? | Tell me the time in {0}. | How late is it in {0}?"),
        _time,
        phrases("And in {0}? | What about {0}? | What time is it in {0}?"),
        phrases("What time is it in {0} and in {1}?"),
    ),
    Purpose(
        "price",
        ("get_price", "price", "lookup_price", "price_of"),
        (("item", "product", "article"),),
        ("The price of an item.", "Look up a price."),
        lambda rng: [rng.choice((*THINGS, *THINGS, nonsense(rng)))],
        phrases("What does a {0} cost? | How much is a {0}? | What is the price of a {0}?"),
        _price,
        phrases("And a {0}? | What about a {0}? | How much is a {0}?"),
        phrases("What do a {0} and a {1} cost?"),
        closed=True,
    ),
    Purpose(
        "message",
        ("send_message", "message", "send", "notify"),
        (("to", "recipient", "name"), ("text", "body", "message")),
        ("Send a message to someone.", "Sends a message."),
        lambda rng: [
            rng.choice(VISITORS),
            f"the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)} is here",
        ],
        phrases("Send a message to {0}: {1} | Tell {0}: {1} | Write to {0}: {1}"),
        _message,
        phrases("And to {0}: {1} | Tell {0}: {1}"),
    ),
    Purpose(
        "timer",
        ("set_timer", "timer", "start_timer"),
        (("minutes", "duration", "length"),),
        ("Start a timer.", "Set a timer in minutes."),
        lambda rng: [rng.randint(2, 60)],
        phrases("""
            Set a timer for {0} minutes. | Start a timer of {0} minutes. | Wake me in {0} minutes.
        """),
        _timer,
        phrases("And one for {0} minutes. | Set another for {0} minutes."),
        closed=True,
    ),
    Purpose(
        "sum",
        ("add", "sum", "add_numbers", "plus"),
        (("a", "x", "first"), ("b", "y", "second")),
        ("Add two numbers.", "Adds a and b.", "Returns the sum of two numbers."),
        lambda rng: [_number(rng), _number(rng)],
        phrases("""
            What is {0} plus {1}? | Add {0} and {1}. | What is {0} + {1}? | How much is {0} + {1}?
        """),
        _calculation("plus"),
        phrases("And {0} plus {1}? | What is {0} + {1}?"),
        weight=0.8,
    ),
    Purpose(
        "sum",
        ("multiply", "times", "multiply_numbers", "product"),
        (("a", "x", "first"), ("b", "y", "second")),
        ("Multiply two numbers.", "Multiplies a and b."),
        lambda rng: [_number(rng), rng.randint(0, 99)],
        phrases("""
            What is {0} times {1}? | Multiply {0} and {1}. | What is {0} * {1}? |
            Multiply {0} by {1}.
        """),
        _calculation("times"),
        phrases("And {0} times {1}? | What is {0} * {1}?"),
        weight=0.8,
    ),
    Purpose(
        "sum",
        ("calculator", "calculate", "evaluate", "calc"),
        (("expression", "formula", "input"),),
        ("Evaluate an expression.", "Calculates.", "A calculator."),
        lambda rng: [f"{_number(rng)} {rng.choice('+-*/')} {_number(rng)}"],
        phrases("What is {0}? | Calculate {0}. | Compute {0}. | How much is {0}?"),
        _expression,
        phrases("And {0}? | What is {0}?"),
        weight=0.6,
    ),
    Purpose(
        "search",
        ("search", "web_search", "find", "lookup", "search_docs", "retrieve"),
        (("query", "q", "text", "topic"),),
        ("Search the web.", "Search for a text.", "Finds documents about a topic."),
        lambda rng: [
            " ".join(
                rng.choice((rng.choice(WORDS), nonsense(rng))) for _ in range(rng.randint(1, 3))
            )
        ],
        phrases("Search for {0}. | Look up {0}. | Find {0}. | Search the web for {0}."),
        _found,
        phrases("And {0}? | Now look up {0}. | Search for {0}."),
    ),
    Purpose(
        "secret",
        ("get_secret_word", "secret_word", "secret", "magic_word", "get_word"),
        (),
        ("The secret word.", "Returns the secret word of the day."),
        lambda rng: [],
        phrases("What is the secret word? | Tell me the secret word. | What's the secret word?"),
        _secret,
        phrases("And now? | Once more, please. | What is the secret word?"),
        weight=0.6,
    ),
    Purpose(
        "dice",
        ("roll_dice", "roll_die", "dice", "roll"),
        (),
        ("Roll a die.", "Rolls the dice and returns the number."),
        lambda rng: [],
        phrases(
            "Roll a die. | Roll the dice. | Roll a dice for me. | My guess is 4, roll the dice"
        ),
        _rolled,
        phrases("Again. | Roll again. | Once more, please."),
        weight=0.6,
    ),
)
