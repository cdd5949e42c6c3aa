"""Merge what subschemas require of an object: its names and their values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Set
from itertools import chain, product

from headrace_worker.engine.regex.automaton import Automaton, matches
from headrace_worker.engine.regex.value_regex import (
    ANY_TEXT,
    NEVER,
    Alt,
    And,
    Not,
    Regex,
    alternatives,
    literal,
    search,
)
from headrace_worker.engine.schema.keywords import (
    SchemaRefused,
    keywords_beside,
    refusing_unsupported,
)
from headrace_worker.engine.schema.subschemas import Key, Members, Subschemas, child_pointer, key_of
from headrace_worker.engine.schema.value_sets import (
    AdditionalNames,
    Constants,
    Node,
    Object,
    String,
    Unsatisfiable,
    expression_or_automaton,
)

MAX_PATTERNS = 3

Patterns = dict[str, tuple[Regex, Regex]]
"""By pattern: names that surely match, and those that some dialect takes for a match."""


class ObjectMerger:
    """Merges objects of one schema."""

    def __init__(self, subschemas: Subschemas, get_node: Callable[[Key], Node | None]) -> None:
        self._subschemas, self._get_node = subschemas, get_node

    def merge(self, members: Members) -> Object:
        """Return the objects that satisfy the members. Raises SchemaRefused, Unsatisfiable."""
        patterns: Patterns = {}
        for pointer, schema in members.schemas.items():
            for pattern in schema.get("patternProperties", {}):
                with refusing_unsupported("patternProperties", pointer):
                    patterns[pattern] = search(pattern), search(pattern, permissive=True)
        allowed = self._allowed_names(members)
        declared, forbidden = {}, []
        required = frozenset(chain.from_iterable(members.values("required")))
        names = members.values("properties") + members.values("required")
        for name in dict.fromkeys(chain.from_iterable(names)):
            if all(matches(regex, name) for regex in allowed):
                declared[name] = self._value(name, members, patterns)
            else:
                forbidden.append(name)
        if lacking := sorted(required - declared.keys()):
            raise Unsatisfiable(
                f"propertyNames at {members.where} forbids the required {lacking[0]!r}"
            )
        additional = self._additional(members, patterns, allowed, (*declared, *forbidden))
        minimum, maximum = members.least("minProperties"), members.most("maxProperties")
        if not additional and maximum is not None and maximum >= len(declared):
            maximum = None
        closed = not additional and False in members.values("additionalProperties")
        if maximum is not None and maximum < max(minimum, len(required)):
            raise Unsatisfiable(f"maxProperties at {members.where} is below what is required")
        if minimum > len(declared) + bool(additional):
            if not closed:
                raise SchemaRefused(
                    f"minProperties at {members.where} cannot be enforced: names that are not"
                    " declared may come twice; declare as many in properties"
                )
            raise Unsatisfiable(f"minProperties at {members.where} is above what may come")
        return Object(declared, required, additional, minimum, maximum, closed, tuple(forbidden))

    def _value(self, name: str, members: Members, patterns: Patterns) -> Key:
        """Return the pointers of subschemas that apply to a declared name."""
        surely = {p for p, (regex, _) in patterns.items() if matches(regex, name)}
        perhaps = {p for p, (_, regex) in patterns.items() if matches(regex, name)}
        pointers = _pointers(members, perhaps, perhaps - surely, name)
        if not pointers:
            # Required, and not more: where others may not come, it may not either.
            pointers = [
                child_pointer(pointer, "unevaluatedProperties")
                for pointer, schema in members.schemas.items()
                if schema.get("unevaluatedProperties") is False
            ]
        return key_of(pointers)

    def _additional(
        self, members: Members, patterns: Patterns, allowed: list[Regex], taken: tuple[str, ...]
    ) -> tuple[AdditionalNames, ...]:
        """Return which undeclared names may come; one entry for each set of patterns."""
        unevaluated = unevaluated_allowed(self._subschemas, members, "unevaluatedProperties")
        # Whether names that match nothing may come.
        open_ = members.have("additionalProperties") or (
            unevaluated and not members.have("properties", "patternProperties")
        )
        if len(patterns) > MAX_PATTERNS:
            raise SchemaRefused(
                f"patternProperties at {next(iter(members.schemas))} cannot be enforced: there are"
                f" {len(patterns)}; {MAX_PATTERNS} may be"
            )
        found = []
        for chosen in product((True, False), repeat=len(patterns)):
            matched = {p for p, match in zip(patterns, chosen, strict=True) if match}
            if not matched and not open_:
                continue
            pointers = _pointers(members, matched)
            if any(self._subschemas.get(pointer) is False for pointer in pointers):
                continue
            parts = [
                surely if pattern in matched else Not(perhaps)
                for pattern, (surely, perhaps) in patterns.items()
            ]
            regex = _all_of([*parts, *allowed], taken)
            if regex is None or not _is_never(regex, members):
                found.append(AdditionalNames(regex, key_of(pointers)))
        return tuple(found)

    def _allowed_names(self, members: Members) -> list[Regex]:
        """Return what each propertyNames allows, unless that is any name."""
        found: list[Regex] = []
        for pointer, schema in members.schemas.items():
            if "propertyNames" not in schema:
                continue
            node = self._get_node((child_pointer(pointer, "propertyNames"),))
            if node is None:
                raise SchemaRefused(
                    f"propertyNames at {pointer} cannot be enforced: it has itself in it"
                )
            options = [each.regex for each in node.value_sets if isinstance(each, String)]
            if "string" in node.omitted_types or ANY_TEXT in options:
                continue
            for value_set in node.value_sets:
                if isinstance(value_set, Constants):
                    options += [literal(each) for each in value_set.values if isinstance(each, str)]
            found.append(Alt(tuple(options)) if options else NEVER)
        return found


def unevaluated_allowed(subschemas: Subschemas, members: Members, word: str) -> bool:
    """Return whether all members allow what no other keyword is about.

    Raises:
        SchemaRefused: a value is a schema, or subschemas that its own does not see have keywords
            too.
    """
    allowed = True
    for pointer, schema in members.schemas.items():
        value = schema.get(word, True)
        if value in (True, {}):
            continue
        allowed = False
        seen = {each for one in subschemas.alternatives((pointer,)) for each in one}
        others = Members({p: s for p, s in members.schemas.items() if p not in seen})
        if value is not False or others.have(*keywords_beside(word)):
            raise SchemaRefused(f"{word} at {pointer} cannot be enforced here")
    return allowed


def _pointers(
    members: Members, matched: Set[str], doubtful: Set[str] = frozenset(), *names: str
) -> list[str]:
    """Return the subschemas of these names, or of any name that matches these patterns.

    Whether it matches those in `doubtful` depends on the dialect.
    """
    pointers: list[str] = []
    for pointer, schema in members.schemas.items():
        patterns = [p for p in schema.get("patternProperties", {}) if p in matched]
        declared = [name for name in names if name in schema.get("properties", {})]
        own = [child_pointer(pointer, "properties", name) for name in declared]
        own += [child_pointer(pointer, "patternProperties", pattern) for pattern in patterns]
        if "additionalProperties" in schema and (not own or doubtful & set(patterns)):
            own.append(child_pointer(pointer, "additionalProperties"))
        pointers += own
    return pointers


def _is_never(regex: Regex, members: Members) -> bool:
    with refusing_unsupported("patternProperties", members.first_with("patternProperties")):
        form = expression_or_automaton(regex)
    return isinstance(form, Automaton) and form.is_empty


def _all_of(parts: list[Regex], taken: tuple[str, ...]) -> Regex | None:
    """Return all parts without the taken names; None if nothing is required."""
    parts = [part for part in parts if part != ANY_TEXT]
    if not parts:
        return None
    if taken:
        parts.append(Not(alternatives(*taken)))
    return parts[0] if len(parts) == 1 else And(tuple(parts))
