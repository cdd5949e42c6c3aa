"""Lessons whose answer stands in the conversation itself: repeating, looking up, remembering."""

from __future__ import annotations

from random import Random

from openers import SMALL_TALK, UNKNOWABLE
from skills import WORDS, counting, listing, nonsense
from talk import Turns, careless, phrases, say, words

VERBS = words("sings sleeps shines waits falls dances runs swims flies laughs turns opens")
ADJECTIVES = words("blue small old quick quiet golden cold green funny brave tired white")

PROSE = tuple(" ".join((*UNKNOWABLE, *(answer for _, answer in SMALL_TALK))).split())

HOLDERS = ("box", "bag", "drawer", "jar", "basket", "pocket", "cupboard", "chest", "tin", "barrel")
THINGS = words("""
    key map coin ring letter spoon candle book whistle button pencil apple stone shell glove hat
    bell feather
""")
VISITORS = words("""
    Zoe Anna Ben Carl Dana Eli Fay Gus Hana Ira Jo Ken Lia Max Nora Otis Pia Rob Sam Tess Umar
    Vera Will Yan Amir Bea Cleo Dan Emma Finn
""")

REPEAT = phrases("""
    Repeat: {p} | Repeat after me: {p} | Repeat this: {p} | Say: {p} | Say {p} | Echo: {p} |
    Write this down: {p} | Please repeat: {p} | Copy this: {p} | Say "{p}"
""")
REPEAT_THRICE = ("Say {p} three times.", "Repeat {p} three times.")
GREET = phrases("Say hello to {n}. | Say hi to {n}. | Greet {n}. | Please greet {n}.")
TELL_NAME = phrases("""
    My name is {n}. | I am {n}. | Hello, I am {n}. | Hi, my name is {n}. | I'm {n}. |
    Call me {n}. | you can call me {n}
""")
ASK_NAME = phrases("""
    What is my name? | Who am I? | Do you know my name? | What's my name? |
    Do you remember my name?
""")


def _phrase(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.25:
        return f"the {rng.choice(ADJECTIVES)} {rng.choice(WORDS)} {rng.choice(VERBS)}"
    if draw < 0.45:
        return " ".join(nonsense(rng) for _ in range(rng.randint(1, 4)))
    if draw < 0.7:
        at = rng.randrange(len(PROSE) - 9)
        return " ".join(PROSE[at : at + rng.randint(2, 9)])
    if draw < 0.75:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 6)))
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 7)))


def repeating(rng: Random) -> Turns:
    phrase, questions, answer = _phrase(rng), REPEAT, "{p}"
    if rng.random() < 0.25:
        questions, answer = REPEAT_THRICE, "{p}, {p}, {p}"
    # Why not `careless`: what is to be repeated has to arrive as it is.
    asked = rng.choice(questions)
    asked = asked.lower() if rng.random() < 0.25 else asked
    return say(asked.format(p=phrase), answer.format(p=phrase))


def looking_up(rng: Random) -> Turns:
    """Where is it? The answer stands in the question, one sentence among several.

    Often more is asked about the same sentences: one reading, several lessons.
    """
    count = rng.randint(1, 4)
    things, holders = rng.sample(THINGS, count), rng.sample(HOLDERS, count)
    places = [f"the {rng.choice(ADJECTIVES)} {holder}" for holder in holders]
    told = [f"The {thing} is in {place}." for thing, place in zip(things, places, strict=True)]
    turns: Turns = []
    for at in rng.sample(range(count), rng.randint(1, count)):
        asked = rng.choice(
            (
                f"Where is the {things[at]}?",
                f"What is in {places[at]}?",
                f"And the {things[at]}?" if turns else f"Where's the {things[at]}?",
            )
        )
        before = "" if turns else f"{' '.join(told)} "
        asked = before + asked
        turns += say(asked.lower() if rng.random() < 0.25 else asked, told[at])
    return turns


def _visitor(rng: Random) -> str:
    return rng.choice(VISITORS) if rng.random() < 0.65 else nonsense(rng).capitalize()


def greeting_by_name(rng: Random) -> Turns:
    name = _visitor(rng)
    return say(rng.choice(GREET).format(n=name), f"Hello, {name}! It is good to see you.")


def visitor_name(rng: Random) -> Turns:
    """A name told once is asked for later, with other talk in between."""
    name = _visitor(rng)
    told = rng.choice(TELL_NAME).format(n=name)
    turns = say(told, f"Nice to meet you, {name}. What would you like to know?")
    for _ in range(rng.choice((0, 0, 1, 2))):
        turns += rng.choice((listing, counting))(rng)
    return turns + say(careless(rng, rng.choice(ASK_NAME)), f"Your name is {name}.")
