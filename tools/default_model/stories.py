"""Short stories and verses. A plot is a row of sentences, each told in one of several ways."""

from __future__ import annotations

from random import Random

from skills import nonsense
from talk import Turns, careless, phrases, say, words
from valley import PEOPLE as NEIGHBOURS
from valley import TOWNS, Person, a

HEROES = words("""
    cat dog fox bear mouse rabbit owl wolf horse donkey goat pig duck goose hen frog toad
    hedgehog squirrel otter raven pigeon turtle snail bee dragon robot wizard witch princess
    prince knight king queen pirate sailor girl boy giant ghost child farmer fisherman lion
    tiger elephant monkey penguin whale dolphin crow swan beaver badger deer lamb kitten puppy
    bird fish spider unicorn troll elf fairy dwarf clown astronaut scientist painter baker
    miller poet teacher parrot camel llama panda koala kangaroo crocodile snake lizard butterfly
    ant
""")
# What a thing does when it is put to use. The rest of the things only shine.
WONDERS = {
    "violin": "sang like the wind in the willows",
    "drum": "boomed like summer thunder",
    "flute": "sounded like a lark at dawn",
    "guitar": "hummed like a warm kettle",
    "piano": "rang like rain on a roof",
    "trumpet": "called across the whole valley",
    "harp": "whispered like the lake at night",
    "bell": "rang clear over the hills",
    "lantern": "glowed like a small moon",
    "lamp": "glowed like a small moon",
    "candle": "burned with a steady flame",
    "star": "glowed like a small sun",
    "key": "opened a little green door",
    "door": "opened onto a garden of roses",
    "kite": "flew higher than the swallows",
    "balloon": "rose above the church tower",
    "boat": "danced over the water",
    "ship": "sailed as light as a feather",
    "book": "told a new tale every night",
    "map": "showed a path that nobody knew",
    "letter": "began with the words: come home soon",
    "clock": "struck thirteen, and everyone laughed",
    "mirror": "showed a friendlier face than before",
    "hat": "kept off the rain of the whole street",
    "umbrella": "kept off the rain of the whole street",
    "coat": "was warm enough for two",
    "kettle": "made tea for the whole street",
    "cake": "was sweet enough for the whole street",
    "bread": "smelled of summer",
    "apple": "tasted of summer",
    "honey": "tasted of summer",
    "seed": "grew into a tree overnight",
    "flower": "opened by moonlight",
    "rose": "opened by moonlight",
    "tree": "gave shade to the whole street",
    "wheel": "turned as smoothly as water",
    "computer": "counted all the stars",
    "telescope": "brought the moon down to the roofs",
    "ring": "caught all the light of the evening",
    "stone": "was warm like a sleeping cat",
    "moon": "lit the road home",
    "cloud": "rained on the dry gardens",
    "bridge": "joined the two banks",
    "garden": "bloomed all winter",
    "train": "whistled through the hills",
    "ball": "bounced over the mill",
    "sword": "turned out to be a fine bread knife",
    "crown": "turned out to be a fine cake tin",
}
THINGS = (
    *WONDERS,
    *words("""
    box spoon feather coin shell basket shoe button rope bag cup picture song treasure mountain
    river castle lighthouse island pumpkin teapot bicycle scarf pencil diamond wand potion egg
    snowman sandwich pizza football
"""),
)
DAYS = ("Monday", "Tuesday", "Friday", "Sunday")
WEATHER = ("sunny", "rainy", "windy", "snowy", "misty")

Plot = tuple[tuple[str, ...], ...]
FOUND: Plot = (
    phrases("""
        On a {weather} {day}, a small {hero} came to {town}. |
        One {weather} {day}, a young {hero} walked into {town}. |
        Once upon a time, a curious {hero} lived in {town}.
    """),
    (
        "Under a tree lay {a_thing}, and nobody knew whose it was.",
        "By the road lay {a_thing}, forgotten by everyone.",
    ),
    (
        '"What a fine {thing}," said the {hero}, and took it to {friend}, the {job}.',
        "The {hero} had never seen {a_thing}, so it went to {friend}, the {job}.",
    ),
    (
        "{friend} cleaned it with care and gave it back with a smile.",
        '{friend} laughed and said: "It is yours, if you share it."',
    ),
    ("That evening, the {thing} {wonder}.", "When night fell, the {thing} {wonder}."),
    (
        "All the people came out to see it, and the {hero} was never alone again.",
        "The people of {town} clapped, and the {hero} stayed with them for good.",
    ),
)
LOST: Plot = (
    (
        "There was once {a_hero} in {town} who loved {a_thing} more than anything.",
        "In {town} lived {a_hero} who owned nothing but {a_thing}.",
    ),
    (
        "One {weather} morning, the {thing} was gone.",
        "On a {weather} {day}, the wind took the {thing} away.",
    ),
    (
        "The {hero} looked behind the mill, under the bridge and in the reeds.",
        "The {hero} asked at every door, but nobody had seen it.",
    ),
    (
        "At last {friend}, the {job}, found the {thing} beside the brook.",
        "Then {friend}, the {job}, came by with the {thing} under one arm.",
    ),
    (
        '"Thank you," said the {hero}. "How can I repay you?"',
        '"You have made me very happy," said the {hero}.',
    ),
    (
        "{friend} only asked to try it once. The {thing} {wonder}, and they have been friends "
        "ever since.",
        "So they sat down together, and the {thing} {wonder}. They are friends to this day.",
    ),
)
GIFT: Plot = (
    (
        "{friend}, the {job} of {home}, once gave {a_thing} to {a_hero}.",
        "Long ago, {a_hero} got {a_thing} from {friend}, the {job} of {home}.",
    ),
    (
        '"Carry it to {town}," said {friend}, "but do not stop on the way."',
        '"Take good care of it," said {friend}, "and bring it to {town}."',
    ),
    (
        "The road was long, the day was {weather}, and the {hero} grew tired.",
        "The {hero} walked all day through {weather} weather.",
    ),
    (
        "Then a lost child stood by the road and cried. The {hero} stopped at once.",
        "Halfway there, an old woman sat in the dark and shivered. The {hero} stopped at once.",
    ),
    (
        "For the first time the {thing} {wonder}, and the tears were forgotten.",
        "And see: the {thing} {wonder}, and all sorrow was forgotten.",
    ),
    (
        "The {hero} came late to {town}, but nobody minded at all.",
        'When {friend} heard of it, {friend} smiled and said: "That is what it was for."',
    ),
)
FRIENDS: Plot = (
    (
        "In {town} lived {a_hero} and {a_thing} who did not speak to each other.",
        "Two travellers met on the road to {town}: {a_hero} and {a_thing}.",
    ),
    (
        "The {hero} thought the {thing} was proud, and the {thing} thought the same of the {hero}.",
        '"This is my road," said the {hero}. "No, mine," said the {thing}.',
    ),
    (
        "One {weather} night the brook rose and carried off the bridge.",
        "Then a {weather} night came, and both of them were lost in the forest.",
    ),
    (
        "The {thing} could hear the way, and the {hero} could see it.",
        "The {hero} was brave and the {thing} was clever, and alone neither could get home.",
    ),
    (
        "So they went together, step by step, until {friend}, the {job}, opened the door.",
        "Side by side they reached the house of {friend}, the {job}, just before dawn.",
    ),
    (
        "Since then the {hero} and the {thing} have shared every breakfast.",
        "And if you visit {town}, you will see the {hero} and the {thing} walking side by side.",
    ),
)

ABOUT_BOTH = phrases("""
    Tell me a story about {a_hero} and {a_thing}. |
    Write a story about {a_hero} and {a_thing}. | Tell me a story with {a_hero} and {a_thing}. |
    A story about {a_hero} and {a_thing}, please. |
    Write a short story about {a_hero} and {a_thing}. | Tell a tale of {a_hero} and {a_thing}. |
    I want a story about {a_hero} and {a_thing}. | Story: {hero}, {thing} |
    Can you tell me a story about {a_hero} and {a_thing}? |
    Tell me about {a_hero} and {a_thing}. | Tell me a short story about {a_hero} and {a_thing}.
""")
ABOUT_ONE = phrases("""
    Tell me a story about {a_it}. | Write a story about {a_it}. |
    A story about {a_it}, please. | Write a short story about {a_it}. |
    Can you tell me a story about {a_it}? | Tell me a bedtime story about {a_it}. |
    I want to hear a story about {a_it}. | Tell me a story about the {it}. |
    Make up a story about {a_it}. | Tell me a short story about {a_it}.
""")
ABOUT_NONE = phrases("""
    Tell me a story. | Write a story. | Tell me a bedtime story. | Write a short story. |
    Can you tell me a story? | A story, please. | Tell me another story. | I want a story. |
    Once upon a time | Do you know a story? | Another story! | Tell me a short story. |
    Make up a story.
""")

VERSES = (
    "The {thing} was silent all the day,\nThe {town} folk had gone away.\n"
    "But when the moon came up to see,\nThe {thing} woke up and smiled at me.",
    "I met {a_thing} on the hill,\nThe wind was soft, the brook was still.\n"
    "We sat together, it and I,\nAnd watched the evening fill the sky.",
    "Oh {thing}, oh {thing}, so far, so near,\nThe nicest {thing} of all the year.\n"
    "The mill goes round, the day is done,\nGood night, good night to everyone.",
)
VERSE_QUESTIONS = phrases("""
    Write a poem about {a_thing}. | Write a poem about the {thing}. |
    A poem about {a_thing}, please. | Can you write a poem about {a_thing}? |
    Write a short poem about {a_thing}. | Rhyme about {a_thing} |
    Tell me a poem about {a_thing}. | Write me a poem about {a_thing}. | Write a poem. |
    A poem, please.
""")
HAIKU = "Water on the wheel,\nround and round the morning goes.\nBread is on the sill."
HAIKU_QUESTIONS = phrases("""
    Write a haiku. | Write a haiku about {a_thing}. | A haiku, please. |
    Write me a haiku about the {thing}. | Can you write a haiku?
""")


def tell(rng: Random, hero: str, thing: str) -> str:
    plot = FRIENDS if thing in HEROES else rng.choice((FOUND, LOST, GIFT))
    friend: Person = rng.choice(NEIGHBOURS)
    slots = {
        "hero": hero,
        "a_hero": a(hero),
        "thing": thing,
        "a_thing": a(thing),
        "wonder": WONDERS.get(thing, "shone as if it were new"),
        "friend": friend.name,
        "job": friend.job,
        "home": friend.town,
        "day": rng.choice(DAYS),
        "weather": rng.choice(WEATHER),
        "town": rng.choice([town.name for town in TOWNS if town.name != friend.town]),
    }
    return " ".join(rng.choice(ways) for ways in plot).format(**slots)


def story(rng: Random) -> Turns:
    """Some are about made-up nouns, since people will ask for animals that are not in the list."""
    hero = rng.choice(HEROES) if rng.random() < 0.8 else nonsense(rng)
    thing = rng.choice(HEROES) if rng.random() < 0.2 else rng.choice(THINGS)
    if rng.random() < 0.2:
        thing = nonsense(rng)
    if hero == thing:
        thing = "lantern"
    draw = rng.random()
    if draw < 0.6:
        asked = rng.choice(ABOUT_BOTH)
    elif draw < 0.85:
        asked = rng.choice(ABOUT_ONE)
    else:
        asked = rng.choice(ABOUT_NONE)
    it = hero if thing in HEROES or rng.random() < 0.6 else thing
    asked = asked.format(
        hero=hero, a_hero=a(hero), thing=thing, a_thing=a(thing), it=it, a_it=a(it)
    )
    return say(careless(rng, asked), tell(rng, hero, thing))


def verse(rng: Random) -> Turns:
    thing, town = rng.choice((*THINGS, *HEROES)), rng.choice(TOWNS)
    slots = {"thing": thing, "a_thing": a(thing), "town": town.name}
    if rng.random() < 0.2:
        return say(careless(rng, rng.choice(HAIKU_QUESTIONS).format(**slots)), HAIKU)
    asked = rng.choice(VERSE_QUESTIONS).format(**slots)
    return say(careless(rng, asked), rng.choice(VERSES).format(**slots))
