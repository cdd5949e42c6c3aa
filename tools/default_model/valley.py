"""The closed world the default model knows by heart: one valley, its people, its towns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from talk import words


@dataclass(frozen=True)
class Person:
    name: str
    she: bool
    job: str
    town: str
    pet: str
    food: str
    instrument: str
    colour: str
    friend: str

    @property
    def pronoun(self) -> str:
        return "she" if self.she else "he"

    @property
    def possessive(self) -> str:
        return "her" if self.she else "his"


@dataclass(frozen=True)
class Town:
    name: str
    lies: str
    known_for: str
    square: str
    month: str


TOWNS = (
    Town("Willowmere", "by a quiet lake", "its honey", "an old clock", "May"),
    Town("Oakford", "at the edge of the forest", "its oak barrels", "a wooden bear", "October"),
    Town("Stonebridge", "where two rivers meet", "its seven bridges", "a stone lion", "June"),
    Town("Larkhill", "on a windy hill", "its kites", "a tall flagpole", "April"),
    Town("Millbrook", "along a fast brook", "its bread", "a water wheel", "September"),
    Town("Fernwick", "in a green hollow", "its herbs", "a mossy well", "July"),
    Town("Ashdale", "under the grey mountain", "its iron gates", "a great anvil", "November"),
    Town("Brightwater", "by the river mouth", "its glass", "a blue fountain", "August"),
)

_PEOPLE = """
Ada     f baker         Willowmere  cat      plum_cake       violin    red     Ida
Bram    m miller        Millbrook   donkey   oat_bread       trumpet   white   Sven
Clara   f clockmaker    Stonebridge owl      apple_pie       flute     gold    Greta
Dov     m teacher       Larkhill    dog      lentil_soup     guitar    green   Mira
Edith   f beekeeper     Willowmere  goose    honey_toast     harp      yellow  Ada
Felix   m smith         Ashdale     raven    beef_stew       drum      black   Victor
Greta   f gardener      Fernwick    tortoise tomato_salad    cello     purple  Clara
Hugo    m doctor        Oakford     parrot   mushroom_soup   piano     blue    Kira
Ida     f boat_builder  Willowmere  otter    smoked_fish     banjo     silver  Ada
Jonas   m fisher        Brightwater pelican  fish_soup       accordion grey    Rosa
Kira    f weaver        Oakford     rabbit   berry_jam       lute      pink    Hugo
Leo     m letter_carrier Larkhill   pigeon   cheese_pie      whistle   orange  Dov
Mira    f potter        Larkhill    hen      rice_pudding    oboe      brown   Leo
Nils    m carpenter     Oakford     squirrel walnut_bread    fiddle    green   Kira
Olga    f librarian     Stonebridge hedgehog lemon_cake      organ     violet  Pavel
Pavel   m bridge_keeper Stonebridge swan     potato_soup     horn      blue    Olga
Quentin m cook          Millbrook   pig      onion_tart      bagpipes  red     Bram
Rosa    f painter       Brightwater parakeet grilled_peppers mandolin  scarlet Yusuf
Sven    m shepherd      Millbrook   sheep    goat_cheese     pipe      white   Bram
Tilda   f herb_seller   Fernwick    toad     nettle_soup     zither    green   Wanda
Ulla    f bell_founder  Ashdale     goat     barley_soup     bell      bronze  Felix
Victor  m lamplighter   Ashdale     bat      roast_chestnuts saxophone yellow  Ulla
Wanda   f tailor        Fernwick    mouse    cherry_tart     clarinet  violet  Tilda
Yusuf   m glassblower   Brightwater lizard   date_cake       tuba      blue    Jonas
"""


def _person(line: str) -> Person:
    name, sex, *facts = line.split()
    return Person(name, sex == "f", *(fact.replace("_", " ") for fact in facts))


PEOPLE = tuple(_person(line) for line in _PEOPLE.strip().splitlines())

# Why: what is not known is learned from contrast. Without many strange names the model would
# give a stranger the nearest neighbour's house.
STRANGERS = words("""
    Alice Bob Carol Dave Emma Frank Gina Henry Irene Jack Karen Liam Mary Noah Oscar Peter
    Queenie Robert Sarah Thomas Ursula Vera William Xenia Yvonne Zoe Adam Bella Chloe David Eva
    Finn Grace Hannah Ian Julia Kevin Laura Martin Nora Oliver Paula Ralph Simon Tina Umberto
    Violet Walter Yara Zack Anna Ben Cora Daniel Ella Fred Gwen Harry Isla James Kate Luke Maya
    Nina Otto Piet Ruth Sam Tara Uma Vince Will Abel Boris Celia Diego Elsa Fritz Goran Heidi
    Ivan Jane Klaus Lena Max Nadia Omar Petra Rafael Sofia Tom Einstein Napoleon Shakespeare
    Batman
""")
STRANGE_TOWNS = words("""
    London Paris Berlin Rome Madrid Tokyo Boston Chicago Vienna Oslo Dublin Lisbon Prague Warsaw
    Athens Cairo Delhi Moscow Sydney Toronto Zurich Hamburg Munich Geneva Ravensburg Foxton
    Redhill Greenfield Northgate Elmwood Birchley Rosehill Wolfden Eastbury Kingsport Blackpool
    Thornby Whitby Sandwich Hogwarts Atlantis Springfield Riverton Lakeside Maplewood
""")


def a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def join(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def people_of(town: str) -> tuple[str, ...]:
    return tuple(person.name for person in PEOPLE if person.town == town)
