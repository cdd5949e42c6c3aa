"""Lessons about the valley: each fact asked forwards, backwards, by yes or no, of strangers."""

from __future__ import annotations

import json
from random import Random

from talk import Turns, ask, careless, phrases, say
from valley import PEOPLE, STRANGE_TOWNS, STRANGERS, TOWNS, Person, Town, a, join, people_of

NO_SUCH_PERSON = "I do not know anyone of that name. Ask me who lives in the valley."
NO_SUCH_TOWN = "I do not know that place. Ask me which towns are in the valley."

PERSON_QUESTIONS = {
    "job": phrases("""
        What does {name} do? | What is {name}'s job? | What does {name} do for a living? |
        What is {name}'s profession? | What work does {name} do? | Tell me {name}'s job. |
        What's {name}'s job? | What does {name} work as? | And what does {name} do?
    """),
    "town": phrases("""
        Where does {name} live? | Where is {name} from? | What town does {name} live in? |
        In which town does {name} live? | Where can I find {name}? | Where's {name}'s home? |
        Which town is {name} from? | And where does {name} live?
    """),
    "pet": phrases("""
        What pet does {name} have? | Does {name} have a pet? | What animal does {name} keep? |
        Which pet does {name} keep? | What is {name}'s pet? | What's {name}'s pet? |
        Does {name} have any animals?
    """),
    "food": phrases("""
        What does {name} like to eat? | What is {name}'s favourite food? |
        What's {name}'s favorite food? | What food does {name} like? | What does {name} eat? |
        Which dish does {name} like best?
    """),
    "instrument": phrases("""
        What instrument does {name} play? | Which instrument does {name} play? |
        What does {name} play? | Does {name} play an instrument? | What music does {name} make?
    """),
    "colour": phrases("""
        What is {name}'s favourite colour? | What's {name}'s favorite color? |
        Which colour does {name} like? | What color does {name} like? |
        What colour does {name} like best?
    """),
    "friend": phrases("""
        Who is {name}'s best friend? | Who is {name}'s friend? | Who is a friend of {name}? |
        Who does {name} like best? | Who's {name}'s best friend? | Does {name} have a friend?
    """),
}
PERSON_ANSWERS = {
    "job": "{name} is the {job} of {town}.",
    "town": "{name} lives in {town}.",
    "pet": "{name} keeps {a_pet}.",
    "food": "{name} likes {food} best.",
    "instrument": "{name} plays the {instrument}.",
    "colour": "{possessive} favourite colour is {colour}.",
    "friend": "{possessive} best friend is {friend}.",
}
FOLLOW_UPS = {
    "job": phrases("""
        What does {pronoun} do? | And what is {possessive} job? | And {possessive} job?
    """),
    "town": phrases("""
        Where does {pronoun} live? | And where does {pronoun} live? | And {possessive} town?
    """),
    "pet": phrases("""
        Does {pronoun} have a pet? | What pet does {pronoun} have? | And {possessive} pet?
    """),
    "food": ("What does {pronoun} like to eat?", "And {possessive} favourite food?"),
    "instrument": ("What does {pronoun} play?", "Does {pronoun} play an instrument?"),
    "colour": ("What is {possessive} favourite colour?", "And {possessive} favourite colour?"),
    "friend": ("Who is {possessive} best friend?", "And {possessive} best friend?"),
}
ABOUT_PERSON = phrases("""
    Who is {name}? | Tell me about {name}. | What do you know about {name}? | Describe {name}. |
    Do you know {name}? | Who's {name}? | What can you tell me about {name}? | {name}?
""")
BACKWARDS = {
    "job": phrases("""
        Who is the {job}? | Which person is the {job}? | What is the name of the {job}? |
        Is there a {job} in the valley? | Who's the {job}? | Who works as a {job}? |
        Who is the {job} of {town}? | Is there a {job} in {town}?
    """),
    "pet": phrases("""
        Who has a {pet}? | Who keeps a {pet}? | Whose pet is a {pet}? | Who owns a {pet}?
    """),
    "food": phrases("Who likes {food}? | Who eats {food}? | Whose favourite food is {food}?"),
    "instrument": phrases("""
        Who plays the {instrument}? | Who can play the {instrument}? |
        Which person plays the {instrument}? | Who plays {instrument}?
    """),
}
BACKWARDS_ANSWERS = {
    "job": "{name} is the {job}, in {town}.",
    "pet": "{name} keeps {a_pet}.",
    "food": "{name} likes {food} best.",
    "instrument": "{name} plays the {instrument}.",
}

TOWN_QUESTIONS = {
    "people": phrases("""
        Who lives in {town}? | Who is from {town}? | Which people live in {town}? |
        Who are the people of {town}? | Name the people of {town}. |
        Does anyone live in {town}? | Who can I meet in {town}? | Tell me who lives in {town}.
    """),
    "lies": phrases("""
        Where is {town}? | Where does {town} lie? | Where can I find {town}? |
        Where is the town of {town}?
    """),
    "known_for": phrases("""
        What is {town} known for? | What is {town} famous for? | What does {town} make? |
        What's {town} known for? | Why is {town} famous? | What can I buy in {town}?
    """),
    "square": phrases("""
        What stands in the square of {town}? | What is in the square of {town}? |
        What can I see in {town}? | What is there to see in {town}?
    """),
    "month": phrases("""
        When is the fair of {town}? | When is the fair in {town}? |
        In which month is the fair of {town}? | When should I visit {town}?
    """),
}
TOWN_ANSWERS = {
    "people": "{people} live in {town}.",
    "lies": "{town} lies {lies}.",
    "known_for": "{town} is known for {known_for}.",
    "square": "In the square of {town} stands {square}.",
    "month": "The fair of {town} is held in {month}.",
}
TOWN_BACKWARDS = {
    "known_for": phrases("""
        Which town is known for {known_for}? | Which town is famous for {known_for}? |
        Where can I buy {ware}? | What town makes {ware}? | Where does {ware} come from?
    """),
    "square": phrases("""
        Which town has {square} in the square? | Where can I see {square}? |
        Where is there {square}?
    """),
    "month": phrases("""
        Which fair is in {month}? | Which town has its fair in {month}? |
        Is there a fair in {month}? | Where is the fair in {month}?
    """),
    "lies": ("Which town lies {lies}?", "What town is {lies}?"),
}
ABOUT_TOWN = phrases("""
    Tell me about {town}. | What is {town}? | Describe {town}. | What is {town} like? |
    What do you know about {town}? | Do you know {town}? | What can you tell me about {town}?
""")
WHICH_TOWNS = phrases("""
    Which towns are in the valley? | What towns are there? | List the towns. |
    What are the towns of the valley? | Which towns do you know? | Name all the towns. |
    How many towns are in the valley? | What places do you know? | List the towns of the valley.
""")
WHICH_PEOPLE = phrases("""
    Who lives in the valley? | Which people do you know? | Who do you know? |
    Name all the people of the valley. | List the people you know. |
    How many people live in the valley?
""")
ABOUT_VALLEY = phrases("""
    Tell me about the valley. | What is the valley? | Which valley? | What valley? |
    Describe the valley. | Where is the valley? | What is the valley like?
""")


def slots_of(person: Person) -> dict[str, str]:
    return {
        **vars(person),
        "a_pet": a(person.pet),
        "pronoun": person.pronoun,
        "possessive": person.possessive,
    }


def fact_of(person: Person, fact: str) -> str:
    sentence = PERSON_ANSWERS[fact].format(**slots_of(person))
    return sentence[0].upper() + sentence[1:]


def portrait(person: Person) -> str:
    slots = slots_of(person) | {"Pronoun": person.pronoun.capitalize()}
    return (
        "{name} is the {job} of {town}. {Pronoun} keeps {a_pet} and plays the {instrument}. "
        "{Pronoun} likes {food} best, and {possessive} best friend is {friend}."
    ).format(**slots)


def view_of(town: Town) -> str:
    people = join(people_of(town.name))
    return (
        f"{town.name} lies {town.lies} and is known for {town.known_for}. In the square stands "
        f"{town.square}, and the fair is held in {town.month}. {people} live there."
    )


def person_fact(rng: Random) -> Turns:
    person, fact = rng.choice(PEOPLE), rng.choice(tuple(PERSON_QUESTIONS))
    return ask(rng, PERSON_QUESTIONS[fact], fact_of(person, fact), name=person.name)


def person_two_facts(rng: Random) -> Turns:
    """Two questions in one breath, two sentences in the same order."""
    person = rng.choice(PEOPLE)
    first, second = rng.sample(tuple(PERSON_QUESTIONS), 2)
    opening = rng.choice(PERSON_QUESTIONS[first]).rstrip("?.")
    closing = rng.choice(FOLLOW_UPS[second]).removeprefix("And ").removeprefix("and ")
    asked = f"{opening} and {closing[0].lower()}{closing[1:]}".format(**slots_of(person))
    return say(careless(rng, asked), f"{fact_of(person, first)} {fact_of(person, second)}")


def person_portrait(rng: Random) -> Turns:
    person = rng.choice(PEOPLE)
    return ask(rng, ABOUT_PERSON, portrait(person), name=person.name)


def person_followed_up(rng: Random) -> Turns:
    """The second question names nobody; the name stands in the first."""
    person = rng.choice(PEOPLE)
    first, *others = rng.sample(tuple(PERSON_QUESTIONS), rng.choice((2, 2, 3)))
    turns = ask(rng, PERSON_QUESTIONS[first], fact_of(person, first), name=person.name)
    if rng.random() < 0.3:
        turns = ask(rng, ABOUT_PERSON, portrait(person), name=person.name)
    for fact in others:
        turns += ask(rng, FOLLOW_UPS[fact], fact_of(person, fact), **slots_of(person))
    return turns


def person_backwards(rng: Random) -> Turns:
    slots, fact = slots_of(rng.choice(PEOPLE)), rng.choice(tuple(BACKWARDS))
    return ask(rng, BACKWARDS[fact], BACKWARDS_ANSWERS[fact].format(**slots), **slots)


def yes_or_no(rng: Random) -> Turns:
    person = rng.choice(PEOPLE)
    other = person if rng.random() < 0.5 else rng.choice(PEOPLE)
    asked, fact = rng.choice(
        (
            (f"Does {person.name} live in {other.town}?", "town"),
            (f"Is {person.name} from {other.town}?", "town"),
            (f"Is {person.name} {a(other.job)}?", "job"),
            (f"Is {person.name} the {other.job}?", "job"),
            (f"Does {person.name} play the {other.instrument}?", "instrument"),
            (f"Does {person.name} like {other.food}?", "food"),
            (f"Does {person.name} have {a(other.pet)}?", "pet"),
        )
    )
    truth = "Yes" if getattr(person, fact) == getattr(other, fact) else "No"
    return say(careless(rng, asked), f"{truth}, {_inner(fact_of(person, fact), person)}")


def _inner(sentence: str, person: Person) -> str:
    return sentence if sentence.startswith(person.name) else sentence[0].lower() + sentence[1:]


def town_fact(rng: Random) -> Turns:
    town, fact = rng.choice(TOWNS), rng.choice((*TOWN_QUESTIONS, "people"))
    slots = {**vars(town), "people": join(people_of(town.name)), "town": town.name}
    return ask(rng, TOWN_QUESTIONS[fact], TOWN_ANSWERS[fact].format(**slots), town=town.name)


def town_backwards(rng: Random) -> Turns:
    town, fact = rng.choice(TOWNS), rng.choice(tuple(TOWN_BACKWARDS))
    slots = {**vars(town), "town": town.name, "ware": town.known_for.removeprefix("its ")}
    return ask(rng, TOWN_BACKWARDS[fact], TOWN_ANSWERS[fact].format(**slots), **slots)


def town_view(rng: Random) -> Turns:
    town = rng.choice(TOWNS)
    return ask(rng, ABOUT_TOWN, view_of(town), town=town.name)


def whole_valley(rng: Random) -> Turns:
    towns = join([town.name for town in TOWNS])
    questions, answer = rng.choice(
        (
            (WHICH_TOWNS, f"There are eight towns in the valley: {towns}."),
            (WHICH_PEOPLE, "Twenty-four people: " + join([p.name for p in PEOPLE]) + "."),
            (
                ABOUT_VALLEY,
                f"It is a small green valley with eight towns: {towns}. "
                "Twenty-four people live there, and I know them all.",
            ),
        )
    )
    return ask(rng, questions, answer)


def stranger(rng: Random) -> Turns:
    if rng.random() < 0.6:
        questions = rng.choice((*PERSON_QUESTIONS.values(), ABOUT_PERSON, ABOUT_PERSON))
        return ask(rng, questions, NO_SUCH_PERSON, name=rng.choice(STRANGERS))
    questions = rng.choice((*TOWN_QUESTIONS.values(), ABOUT_TOWN, ABOUT_TOWN))
    return ask(rng, questions, NO_SUCH_TOWN, town=rng.choice(STRANGE_TOWNS))


def person_json(rng: Random) -> Turns:
    person = rng.choice(PEOPLE)
    facts = ("name", *rng.choice((("job", "town"), ("job", "town", "pet"), ("town", "instrument"))))
    answer = json.dumps({fact: getattr(person, fact) for fact in facts})
    wanted = join(facts)
    questions = phrases("""
        Give me {name} as JSON with the keys {keys}. | Describe {name} in JSON: {keys}. |
        {name} as JSON, keys {keys}. | Write a JSON object about {name} with {keys}. |
        Return JSON with {keys} for {name}. | JSON with {keys} of {name}, please.
    """)
    return ask(rng, questions, answer, name=person.name, keys=wanted)


def person_plain_json(rng: Random) -> Turns:
    person = rng.choice(PEOPLE)
    answer = json.dumps({fact: getattr(person, fact) for fact in ("name", "job", "town", "pet")})
    questions = phrases("""
        Give me {name} as JSON. | Describe {name} in JSON. | {name} as JSON. | {name} in JSON? |
        Answer in JSON: who is {name}? | Write a JSON object about {name}. | JSON for {name} |
        Tell me about {name} as a JSON object.
    """)
    return ask(rng, questions, answer, name=person.name)
