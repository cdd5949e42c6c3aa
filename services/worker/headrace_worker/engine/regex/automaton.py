"""Regular expressions as deterministic automata, by Brzozowski derivatives. Pure.

So several patterns, a length and taken names become one expression, and it can be decided whether
anything matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from headrace_worker.engine.regex.value_regex import (
    ANY_CHARACTER,
    ANY_TEXT,
    EMPTY,
    NEVER,
    Alt,
    And,
    Cat,
    Chars,
    Not,
    Ranges,
    Regex,
    Repeat,
    UnsupportedPattern,
    cat,
    intersect,
    invert,
    merge_ranges,
)

MAX_STATES = 400
MAX_STEPS = 20_000
"""For one automaton: about a second. A derivative costs a step for each `STEP_PARTS` of its
parts."""
STEP_PARTS = 20
MAX_PARTS = 2000
MAX_CLASSES = 200


@dataclass(frozen=True, slots=True)
class Automaton:
    """State 0 is the start; every state can reach an accepting one, except in an empty
    automaton."""

    transitions: tuple[tuple[tuple[Ranges, int], ...], ...]
    """By state: characters, and the state that they lead to."""
    accepting: frozenset[int]

    @property
    def is_empty(self) -> bool:
        """Whether no string matches."""
        return not self.accepting


def automaton(regex: Regex) -> Automaton:
    """Build the automaton. Raises UnsupportedPattern if it has too many states."""
    if _size(regex) > MAX_PARTS:
        raise UnsupportedPattern("it is too long for what stands beside it")
    states: dict[Regex, int] = {regex: 0}
    order, transitions, steps = [regex], [], 0
    for state in order:
        found: dict[int, list[tuple[int, int]]] = {}
        price = 1 + _size(state) // STEP_PARTS
        for ranges in _classes(state):
            following = derivative(state, ranges[0][0])
            steps += price
            if following == NEVER:
                continue
            if following not in states:
                states[following] = len(order)
                order.append(following)
            found.setdefault(states[following], []).extend(ranges)
            if len(states) > MAX_STATES or steps > MAX_STEPS:
                raise UnsupportedPattern("with what stands beside it, too many states")
        transitions.append([(merge_ranges(ranges), to) for to, ranges in found.items()])
    accepting = {number for state, number in states.items() if nullable(state)}
    return _without_dead_states(transitions, accepting)


def matches(regex: Regex, text: str) -> bool:
    """Return whether the whole string matches."""
    for character in text:
        regex = derivative(regex, ord(character))
        if regex == NEVER:
            return False
    return nullable(regex)


def nullable(regex: Regex) -> bool:
    """Return whether the empty string matches."""
    match regex:
        case Chars():
            return False
        case Cat(parts) | And(parts):
            return all(nullable(part) for part in parts)
        case Alt(parts):
            return any(nullable(part) for part in parts)
        case Not(inner):
            return not nullable(inner)
        case Repeat(inner, minimum, _):
            return minimum == 0 or nullable(inner)


def derivative(regex: Regex, character: int) -> Regex:
    """Return what may follow the character."""
    match regex:
        case Chars(ranges):
            return EMPTY if any(a <= character <= b for a, b in ranges) else NEVER
        case Cat(parts):
            if not parts:
                return NEVER
            head, rest = parts[0], cat(*parts[1:])
            first = cat(derivative(head, character), rest)
            return _alt([first, derivative(rest, character)]) if nullable(head) else first
        case Alt(parts):
            return _alt([derivative(part, character) for part in parts])
        case And(parts):
            return _and([derivative(part, character) for part in parts])
        case Not(inner):
            following = derivative(inner, character)
            return following.inner if isinstance(following, Not) else Not(following)
        case Repeat(inner, minimum, maximum):
            if maximum == 0:
                return NEVER
            rest = Repeat(inner, max(0, minimum - 1), None if maximum is None else maximum - 1)
            return cat(derivative(inner, character), EMPTY if rest.maximum == 0 else rest)


def _alt(parts: list[Regex]) -> Regex:
    return _combined(Alt, parts, neutral=NEVER, decisive=Not(NEVER))


def _and(parts: list[Regex]) -> Regex:
    return _combined(And, parts, neutral=Not(NEVER), decisive=NEVER)


def _combined(kind: type[Alt | And], parts: list[Regex], neutral: Regex, decisive: Regex) -> Regex:
    """Return equal results for equal sets of parts; a `neutral` part adds nothing to others."""
    kept: set[Regex] = set()
    for part in parts:
        kept.update(part.parts if isinstance(part, kind) else (part,))
    if decisive in kept:
        return decisive
    kept.discard(neutral)
    if len(kept) < 2:
        return kept.pop() if kept else neutral
    return kind(tuple(sorted(kept, key=repr)))


def _first_sets(regex: Regex, found: set[Ranges]) -> None:
    """Collect the sets of characters that the expression may begin with."""
    match regex:
        case Chars(ranges):
            found.add(ranges)
        case Cat(parts):
            for part in parts:
                _first_sets(part, found)
                if not nullable(part):
                    break
        case Alt(parts) | And(parts):
            for part in parts:
                _first_sets(part, found)
        case Not(inner) | Repeat(inner, _, _):
            _first_sets(inner, found)


def _classes(regex: Regex) -> tuple[Ranges, ...]:
    """Return characters in classes that the expression does not distinguish at its start."""
    heads: set[Ranges] = set()
    _first_sets(regex, heads)
    return _disjoint_classes(frozenset(heads))


@lru_cache(maxsize=512)
def _disjoint_classes(heads: frozenset[Ranges]) -> tuple[Ranges, ...]:
    classes = [ANY_CHARACTER.ranges]
    for head in sorted(heads):
        halves = ((intersect(each, head), intersect(each, invert(head))) for each in classes)
        classes = [half for both in halves for half in both if half]
        if len(classes) > MAX_CLASSES:
            raise UnsupportedPattern("with what stands beside it, too many sets of characters")
    return tuple(classes)


def _without_dead_states(
    transitions: list[list[tuple[Ranges, int]]], accepting: set[int]
) -> Automaton:
    """Return the automaton without states from which none accepting can be reached."""
    alive = set(accepting)
    while True:
        more = {s for s, out in enumerate(transitions) if any(to in alive for _, to in out)} - alive
        if not more:
            break
        alive |= more
    number = {state: i for i, state in enumerate(sorted(alive | {0}))}
    kept = tuple(
        tuple((ranges, number[to]) for ranges, to in transitions[state] if to in alive)
        for state in sorted(alive | {0})
    )
    return Automaton(kept, frozenset(number[state] for state in accepting))


def regex_of(form: Automaton) -> Regex:
    """Return one expression for the same strings, by state elimination.

    Raises:
        UnsupportedPattern: it would be too long.
    """
    start, end = len(form.transitions), len(form.transitions) + 1
    ways: dict[tuple[int, int], Regex] = {(start, 0): EMPTY}
    ways |= {(state, end): EMPTY for state in form.accepting}
    for state, out in enumerate(form.transitions):
        ways |= {(state, to): Chars(ranges) for ranges, to in out}
    # The last first: most automata lead from the first to the last, and few lead back.
    for state in range(len(form.transitions) - 1, -1, -1):
        round_ = ways.pop((state, state), None)
        middle = EMPTY if round_ is None else Repeat(round_, 0, None)
        before = [(a, way) for (a, b), way in ways.items() if b == state]
        after = [(b, way) for (a, b), way in ways.items() if a == state]
        for a, first in before:
            for b, last in after:
                way = cat(first, middle, last)
                ways[a, b] = _alt([ways[a, b], way]) if (a, b) in ways else way
        ways = {edge: way for edge, way in ways.items() if state not in edge}
        if sum(_size(way) for way in ways.values()) > MAX_STEPS:
            raise UnsupportedPattern("with what stands beside it, it becomes too long")
    return ways.get((start, end), NEVER)


def _size(regex: Regex) -> int:
    match regex:
        case Chars(ranges):
            return 1 + len(ranges) // 8
        case Not(inner) | Repeat(inner, _, _):
            return 1 + _size(inner)
    return 1 + sum(_size(part) for part in regex.parts)


def complement_of(texts: tuple[str, ...]) -> Automaton:
    """Return an automaton of every string but these."""
    children: list[dict[int, int]] = [{}]
    taken = set()
    for text in texts:
        at = 0
        for character in text:
            if ord(character) not in children[at]:
                children[at][ord(character)] = len(children)
                children.append({})
            at = children[at][ord(character)]
        taken.add(at)
    free = len(children)
    transitions = [
        (
            *((((c, c),), to) for c, to in out.items()),
            (invert(merge_ranges([(c, c) for c in out])), free),
        )
        for out in [*children, {}]
    ]
    return Automaton(tuple(transitions), frozenset(range(free + 1)) - taken)


def is_simple(regex: Regex) -> bool:
    """Return whether the expression can be written part by part, without ambiguity."""
    match regex:
        case Chars():
            return bool(regex.ranges)
        case Cat(parts):
            return all(part != ANY_TEXT and is_simple(part) for part in parts)
        case Alt(parts):
            return all(is_simple(part) for part in parts)
        case Repeat(inner, _, _):
            return is_simple(inner)
        case And() | Not():
            return False
