"""Merge what subschemas say of an object: its names and their values. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from headrace_worker.engine.regex.automaton import matches
from headrace_worker.engine.regex.value_regex import (
    ANY_TEXT,
    NEVER,
    Alt,
    And,
    Not,
    Regex,
    UnsupportedPattern,
    alternatives,
    literal,
    search,
)
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.subschemas import Subschemas, child_pointer
from headrace_worker.engine.schema.value_sets import (
    AdditionalNames,
    Constants,
    Key,
    Node,
    Object,
    String,
    expression_or_automaton,
)

Members = list[tuple[str, dict[str, Any]]]
MAX_PATTERNS = 3
OBJECTS = (
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "maxProperties",
    "minProperties",
    "required",
)


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """What one propertyNames allows."""

    regex: Regex
    texts: frozenset[str]
    only_texts: bool
    """Whether `texts` are all."""


class ObjectMerger:
    """Merges objects of one schema; `unsatisfiable` collects why some were left out."""

    def __init__(
        self, subschemas: Subschemas, node: Callable[[Key], Node | None], unsatisfiable: list[str]
    ) -> None:
        self._subschemas, self._node, self._unsatisfiable = subschemas, node, unsatisfiable

    def read(self, members: Members) -> Object | None:
        """Return None if no object satisfies them. Raises SchemaRefused."""
        where = " and ".join(pointer for pointer, _ in members)
        patterns = {
            pattern: (_searched(pattern, pointer), _searched(pattern, pointer, permissive=True))
            for pointer, schema in members
            for pattern in schema.get("patternProperties", {})
        }
        names = self._allowed_names(members)
        declared, forbidden = {}, []
        for name in _names(members):
            if all(_allows(each, name) for each in names):
                declared[name] = self._value(name, members, patterns)
            else:
                forbidden.append(name)
        required = frozenset(n for _, schema in members for n in schema.get("required", ()))
        if lacking := sorted(required - declared.keys()):
            self._unsatisfiable.append(
                f"propertyNames at {where} forbids the required {lacking[0]!r}"
            )
            return None
        additional = self._additional(members, patterns, names, (*declared, *forbidden))
        minimum = int(max((schema.get("minProperties", 0) for _, schema in members), default=0))
        maximum = [int(s["maxProperties"]) for _, s in members if "maxProperties" in s]
        if not additional:
            maximum = [each for each in maximum if each < len(declared)]
        closed = not additional and any(
            schema.get("additionalProperties") is False for _, schema in members
        )
        value_set = Object(
            declared,
            required,
            additional,
            minimum,
            min(maximum, default=None),
            closed,
            tuple(forbidden),
        )
        return self._counted(value_set, where)

    def _counted(self, value_set: Object, where: str) -> Object | None:
        fixed = max(value_set.minimum, len(value_set.required))
        if value_set.maximum is not None and value_set.maximum < fixed:
            self._unsatisfiable.append(f"maxProperties at {where} is below what is required")
            return None
        if value_set.minimum > len(value_set.properties) + bool(value_set.additional):
            if value_set.additional or not value_set.closed:
                raise SchemaRefused(
                    f"minProperties at {where} cannot be enforced: names that are not declared may"
                    " come twice; declare as many in properties"
                )
            self._unsatisfiable.append(f"minProperties at {where} is above what may come")
            return None
        return value_set

    def _value(self, name: str, members: Members, patterns: dict[str, tuple[Regex, Regex]]) -> Key:
        """Return the pointers of subschemas that apply to a declared name."""
        pointers: list[str] = []
        for pointer, schema in members:
            own, doubtful = [], False
            if name in schema.get("properties", {}):
                own.append(child_pointer(pointer, "properties", name))
            for pattern in schema.get("patternProperties", {}):
                surely, perhaps = (matches(each, name) for each in patterns[pattern])
                doubtful = doubtful or perhaps != surely
                if perhaps:
                    own.append(child_pointer(pointer, "patternProperties", pattern))
            if (not own or doubtful) and "additionalProperties" in schema:
                own.append(child_pointer(pointer, "additionalProperties"))
            pointers += own
        if not pointers:
            # Required, and not more: where others may not come, it may not either.
            pointers = [
                child_pointer(pointer, "unevaluatedProperties")
                for pointer, schema in members
                if schema.get("unevaluatedProperties") is False
            ]
        return tuple(dict.fromkeys(pointers))

    def _additional(
        self,
        members: Members,
        patterns: dict[str, tuple[Regex, Regex]],
        names: list[AllowedNames],
        taken: tuple[str, ...],
    ) -> tuple[AdditionalNames, ...]:
        """Return which undeclared names may come; one entry for each set of patterns."""
        open_ = self._is_open(members)
        if len(patterns) > MAX_PATTERNS:
            raise SchemaRefused(
                f"patternProperties at {members[0][0]} cannot be enforced: there are"
                f" {len(patterns)}; {MAX_PATTERNS} may be"
            )
        found = []
        for chosen in product((True, False), repeat=len(patterns)):
            matched = tuple(p for p, match in zip(patterns, chosen, strict=True) if match)
            if not matched and not open_:
                continue
            pointers = []
            for pointer, schema in members:
                own = [p for p in matched if p in schema.get("patternProperties", {})]
                pointers += [child_pointer(pointer, "patternProperties", p) for p in own]
                if not own and "additionalProperties" in schema:
                    pointers.append(child_pointer(pointer, "additionalProperties"))
            if any(self._subschemas.get(pointer) is False for pointer in pointers):
                continue
            parts = [
                surely if match else Not(perhaps)
                for (surely, perhaps), match in zip(patterns.values(), chosen, strict=True)
            ]
            regex = _any_of([*parts, *(each.regex for each in names)], taken)
            if regex is None or not self._is_never(regex, members):
                found.append(AdditionalNames(regex, tuple(dict.fromkeys(pointers)), matched))
        return tuple(found)

    def _is_never(self, regex: Regex, members: Members) -> bool:
        try:
            form = expression_or_automaton(regex)
        except UnsupportedPattern as error:
            at = next((p for p, s in members if "patternProperties" in s), members[0][0])
            raise SchemaRefused(f"patternProperties at {at} cannot be enforced: {error}") from error
        return getattr(form, "is_empty", False)

    def _is_open(self, members: Members) -> bool:
        """Return whether names that match nothing may come."""
        for pointer, _ in members:
            if not unevaluated_allowed(
                self._subschemas, pointer, "unevaluatedProperties", members, OBJECTS
            ):
                return any("additionalProperties" in s for _, s in members)
        if any("additionalProperties" in schema for _, schema in members):
            return True
        return not any(
            word in schema for _, schema in members for word in ("properties", "patternProperties")
        )

    def _allowed_names(self, members: Members) -> list[AllowedNames]:
        """Return what propertyNames requires of every name."""
        found: list[AllowedNames] = []
        for pointer, schema in members:
            if "propertyNames" not in schema:
                continue
            node = self._node((child_pointer(pointer, "propertyNames"),))
            if node is None:
                raise SchemaRefused(
                    f"propertyNames at {pointer} cannot be enforced: it has itself in it"
                )
            options: list[Regex] = []
            texts: list[str] = []
            for value_set in node.value_sets:
                if isinstance(value_set, String):
                    options.append(value_set.regex)
                elif isinstance(value_set, Constants):
                    texts += (value for value in value_set.values if isinstance(value, str))
            if "string" in node.omitted_types:
                options.append(ANY_TEXT)
            if ANY_TEXT not in options:
                regex = Alt((*options, *map(literal, texts))) if options or texts else NEVER
                found.append(AllowedNames(regex, frozenset(texts), not options))
        return found


def unevaluated_allowed(
    subschemas: Subschemas, pointer: str, word: str, members: Members, words: tuple[str, ...]
) -> bool:
    """Return whether the subschema allows what no other keyword is about.

    Raises:
        SchemaRefused: the value is a schema, or subschemas that it does not see have keywords
            too.
    """
    value = subschemas.get_object(pointer).get(word, True)
    if value in (True, {}):
        return True
    own = {each for conjunction in subschemas.alternatives((pointer,)) for each in conjunction}
    seen = all(p in own or not any(w in schema for w in words) for p, schema in members)
    if value is not False or not seen:
        raise SchemaRefused(f"{word} at {pointer} cannot be enforced here")
    return False


def _allows(names: AllowedNames, name: str) -> bool:
    return name in names.texts or (not names.only_texts and matches(names.regex, name))


def _any_of(parts: list[Regex], taken: tuple[str, ...]) -> Regex | None:
    """Return all parts without the taken names; None if nothing is required."""
    parts = [part for part in parts if part != ANY_TEXT]
    if not parts:
        return None
    if taken:
        parts.append(Not(alternatives(*taken)))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _names(members: Members) -> list[str]:
    """Return declared names, then names that are only required, each once."""
    names = [name for _, schema in members for name in schema.get("properties", {})]
    names += [name for _, schema in members for name in schema.get("required", ())]
    return list(dict.fromkeys(names))


def _searched(pattern: str, pointer: str, *, permissive: bool = False) -> Regex:
    try:
        return search(pattern, permissive=permissive)
    except UnsupportedPattern as error:
        raise SchemaRefused(
            f"patternProperties at {pointer} cannot be enforced: {error}"
        ) from error
