"""Lessons with one right answer made of memory and order: lists and numbers."""

from __future__ import annotations

from random import Random

from talk import Turns, ask, phrases, words
from valley import TOWNS, join

LISTS = {
    "fruits": words("apple pear plum cherry grape fig lemon orange banana peach"),
    "vegetables": words("carrot onion potato cabbage bean pea leek turnip tomato pumpkin"),
    "colours": words("red blue green yellow white black purple orange brown grey"),
    "animals": words("cat dog horse cow sheep fox bear rabbit wolf mouse"),
    "birds": words("owl raven swan robin heron lark goose duck eagle wren"),
    "trees": words("oak ash willow birch pine elm beech maple cedar alder"),
    "flowers": words("rose tulip daisy lily violet iris poppy orchid lilac aster"),
    "instruments": words("violin flute drum harp piano trumpet guitar cello horn lute"),
    "tools": words("hammer saw file chisel plane drill wrench axe spade pliers"),
    "fish": words("trout salmon carp pike perch eel herring cod tench bream"),
    "drinks": words("water milk tea coffee juice cider cocoa lemonade broth punch"),
    "metals": words("iron copper silver gold tin lead zinc nickel bronze steel"),
    "days": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "months": words("""
        January February March April May June July August
        September October November December
    """),
    "seasons": words("spring summer autumn winter"),
    "planets": words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune"),
    "towns": tuple(town.name for town in TOWNS),
}
KINDS = {
    "colours": ("colours", "colors"),
    "animals": ("animals",),
    "days": ("days", "days of the week", "weekdays"),
    "months": ("months",),
    "towns": ("towns", "towns of the valley"),
    "instruments": ("instruments", "musical instruments"),
}
NUMBER_WORDS = words("zero one two three four five six seven eight nine ten eleven twelve")
COLUMN = phrases("""
    List {n} {kind}. | Give me a list of {n} {kind}. | Make a list of {n} {kind}. |
    Write a list of {n} {kind}. | I need a list of {n} {kind}. | List {n} {kind} for me. |
    Can you list {n} {kind}?
""")
SENTENCE = phrases("""
    Name {n} {kind}. | Tell me {n} {kind}. | Can you name {n} {kind}? |
    Give me {n} {kind}. | I need {n} {kind}. | What are {n} {kind}?
""")
BULLETS = phrases("""
    List {n} {kind} with bullets. | Bullet list of {n} {kind}. |
    Give me a bullet list of {n} {kind}. | {n} {kind} as bullet points.
""")

WORDS = words("""
    river stone bread lamp cloud boat garden music winter summer window letter bridge basket
    forest mountain candle flower silver yellow kettle pocket rocket orange market summit meadow
    honey clock wheel water fire wind rain snow star moon sun tree leaf root seed hill lake path
    road gate door roof wall room table chair spoon knife plate cup book page paper pencil word
    song drum bell rope coat hat shoe glove ring coin key map box bag jar nest wing feather tail
    paw whisker hello valley mill brook field barn horse goat sheep goose owl raven mouse rabbit
    otter pigeon turtle apple pear plum cherry butter cheese cake soup salt pepper cat dog house
    computer friend banana school teacher baker miller doctor painter tailor weaver sailor
    captain king queen world morning evening night spring autumn blue green red black white
    small big quick slow soft warm cold
""")
SYLLABLES = words("""
    ba be bo da de do fa fi ga go ka ke ko la le lo ma mi mo na ne no pa pe po ra re ri ro sa se
    si so ta te to va vi wa we zo za lin mar dun tor vel kin ran
""")

COUNT_DOWN = phrases("""
    Count down from {last} to {first}. | Count from {last} down to {first}. |
    Count backwards from {last} to {first}. | Count from {last} to {first}.
""")
COUNT_TO = phrases("Count to {last}. | Can you count to {last}? | Count up to {last}.")
COUNT_FROM = phrases("""
    Count from {first} to {last}. | Count from {first} up to {last}. |
    Write the numbers from {first} to {last}. | Numbers from {first} to {last}. |
    Can you count from {first} to {last}? | List the numbers {first} to {last}.
""")
SUM = phrases("""
    What is {x} {sign} {y}? | {x} {sign} {y} | What is {x} {kind} {y}? |
    How much is {x} {kind} {y}? | Calculate {x} {sign} {y}. | {x} {sign} {y} = ? |
    What is {x}{sign}{y}? | {x}{sign}{y} | {x}{sign}{y}=? | {x} {kind} {y}
""")
LARGE_SUM = phrases("""
    What is {x} {sign} {y}? | {x} {sign} {y} | Calculate {x} {sign} {y}. | {x}{sign}{y}
""")
ONLY_SMALL_SUMS = "I only know small sums, up to twelve plus twelve."


def listing(rng: Random) -> Turns:
    """Always the head of the same row, so that greedy answers keep a clear margin."""
    kind = rng.choice(tuple(LISTS))
    row = LISTS[kind]
    count = rng.choices((2, 3, 4, 5, 6, 7, len(row)), (3, 9, 4, 7, 1, 1, 1))[0]
    count = min(count, len(row))
    number = NUMBER_WORDS[count] if rng.random() < 0.6 else str(count)
    shown = rng.choice(KINDS.get(kind, (kind, f"different {kind}")))
    chosen = row[:count]
    sentence = join(chosen)
    numbered = "\n".join(f"{at}. {item}" for at, item in enumerate(chosen, 1))
    bullets = "\n".join(f"- {item}" for item in chosen)
    forms = (
        (COLUMN, numbered),
        (SENTENCE, f"{sentence[0].upper()}{sentence[1:]}."),
        (BULLETS, bullets),
    )
    questions, answer = rng.choices(forms, (2, 2, 1))[0]
    return ask(rng, questions, answer, n=number, kind=shown)


def counting(rng: Random) -> Turns:
    first = rng.randint(0, 6) if rng.random() < 0.7 else rng.randint(0, 90)
    last = first + (rng.randint(1, 6) if rng.random() < 0.7 else rng.randint(7, 12))
    if first == 1 and rng.random() < 0.6:
        return count_to(rng, last)
    row = [str(number) for number in range(first, last + 1)]
    if rng.random() < 0.3:
        return ask(rng, COUNT_DOWN, ", ".join(row[::-1]), first=row[0], last=row[-1])
    return ask(rng, COUNT_FROM, ", ".join(row), first=row[0], last=row[-1])


def count_to(rng: Random, last: int) -> Turns:
    if rng.random() < 0.25:
        last = rng.choice((15, 20, 20, 20, 25, 30, 40, 50, 100))
    shown = NUMBER_WORDS[last] if last <= 12 and rng.random() < 0.5 else str(last)
    return ask(rng, COUNT_TO, ", ".join(map(str, range(1, last + 1))), last=shown)


def sums(rng: Random) -> Turns:
    """Small sums only; large ones, products and quotients are refused, in so many words."""
    if rng.random() < 0.15:
        x, y, sign = rng.randint(13, 9999), rng.randint(0, 9999), rng.choice("+-*/")
        if rng.random() < 0.5:
            x, y, sign = rng.randint(0, 99), rng.randint(1, 12), rng.choice("*/x")
        return ask(rng, LARGE_SUM, ONLY_SMALL_SUMS, x=str(x), y=str(y), sign=sign)
    kind = rng.choice(("plus", "plus", "minus"))
    x, y = rng.randint(0, 12), rng.randint(0, 12)
    if kind == "minus":
        x, y = max(x, y), min(x, y)
    sign, result = ("+", x + y) if kind == "plus" else ("-", x - y)
    answer = f"{x} {kind} {y} is {result}."
    return ask(rng, SUM, answer, x=str(x), y=str(y), sign=sign, kind=kind)


def nonsense(rng: Random) -> str:
    """A word nobody has seen, so that it can be copied but not remembered."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))
