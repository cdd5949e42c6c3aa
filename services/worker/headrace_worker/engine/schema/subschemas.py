"""Pure room: the schemas within a schema by their places, and which places must hold together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import unquote

from headrace_worker.engine.schema.keywords import KEYWORDS, Form, SchemaRefused, check_keywords

Conjunction = tuple[str, ...]
"""Places of schemas that must all hold, and whose references and combinations are resolved."""

MAX_ALTERNATIVES = 256
_REFERENCES = ("$ref", "$dynamicRef")


class Subschemas:
    """Schemas by JSON pointer, as `#/properties/a`; each is checked when it is first read."""

    def __init__(self, root: dict[str, Any]) -> None:
        """Raises SchemaRefused for identifiers below the root."""
        self._known: dict[str, dict[str, Any] | bool] = {}
        self._required: dict[str, str] = {}
        self._flats: dict[str, list[Conjunction]] = {}
        self._under_way: set[str] = set()
        self._root = root
        self._anchors: dict[str, str] = {}
        self._base = str(root.get("$id", "")).partition("#")[0]
        for place, schema in _within(root, "#"):
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := schema.get(name), str):
                    self._anchors[anchor] = place
            if place != "#" and isinstance(schema.get("$id"), str) and schema["$id"][:1] != "#":
                raise SchemaRefused(
                    f"$id at {place} cannot be enforced; only the root may have one"
                )

    def at(self, place: str) -> dict[str, Any] | bool:
        """Raises SchemaRefused where there is none, or one that cannot be enforced."""
        if place not in self._known:
            self._known[place] = self._find(place)
        return self._known[place]

    def require(self, place: str, names: list[str]) -> None:
        """From now on what fulfils the schema there has these names too."""
        narrowing = self._required.setdefault(place, f"{place}, told apart")
        known = self._known.get(narrowing)
        more = [*known["required"], *names] if isinstance(known, dict) else names
        self._known[narrowing] = {"required": more}
        self._flats.clear()

    def object_at(self, place: str) -> dict[str, Any]:
        """Of a place in a `Conjunction`, which has no true and false."""
        schema = self.at(place)
        assert isinstance(schema, dict)
        return schema

    def alternatives(self, places: tuple[str, ...]) -> list[Conjunction]:
        """Each alone is enough; places that nothing fulfils have none.

        Raises:
            SchemaRefused: a reference is wrong, or there are too many of them.
        """
        return _joined([self._expanded(place) for place in places], " and ".join(places))

    def _expanded(self, place: str) -> list[Conjunction]:
        if place in self._under_way:
            raise SchemaRefused(f"the schema at {place} refers to itself, without anything between")
        # Kept: what is referred to twice at each of many levels would be read without end.
        if place not in self._flats:
            self._under_way.add(place)
            self._flats[place] = self._expand(place)
            self._under_way.discard(place)
        return self._flats[place]

    def _expand(self, place: str) -> list[Conjunction]:
        schema = self.at(place)
        if isinstance(schema, bool):
            return [()] if schema else []
        if isinstance(name := _discriminator(schema), str) and place not in self._required:
            self.require(place, [name])
        own = (place, self._required[place]) if place in self._required else (place,)
        parts: list[list[Conjunction]] = [[own]]
        for name in _REFERENCES:
            if name in schema:
                parts.append(self._expanded(self._target(schema[name], f"{name} at {place}")))
        for i in range(len(schema.get("allOf", ()))):
            parts.append(self._expanded(f"{place}/allOf/{i}"))
        for name in ("anyOf", "oneOf"):
            if name in schema:
                each = (self._expanded(f"{place}/{name}/{i}") for i in range(len(schema[name])))
                parts.append(list(dict.fromkeys(flat for one in each for flat in one)))
        return _joined(parts, place)

    def _target(self, reference: str, what: str) -> str:
        if self._base and reference.startswith(self._base):
            reference = reference[len(self._base) :] or "#"
        if not reference.startswith("#"):
            raise SchemaRefused(
                f'{what} names "{reference[:128]}", which is not in this schema; references begin'
                " with #"
            )
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise SchemaRefused(f'{what} names "{reference[:128]}", an anchor that nothing has')
            return self._anchors[fragment]
        try:
            self._find(f"#{fragment}")
        except KeyError:
            raise SchemaRefused(f'{what} names "{reference[:128]}", where nothing is') from None
        return f"#{fragment}"

    def _find(self, place: str) -> dict[str, Any] | bool:
        found: Any = self._root
        for name in place.split("/")[1:]:
            if isinstance(found, bool):
                raise KeyError(place)
            if isinstance(found, list):
                found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
            else:
                found = found[name.replace("~1", "/").replace("~0", "~")]
            if not isinstance(found, dict | list | bool):
                raise KeyError(place)
        if isinstance(found, list):
            raise KeyError(place)
        if isinstance(found, dict):
            check_keywords(found, place)
            return found
        return bool(found)


def below(place: str, *names: str | int) -> str:
    """The place of what is within a schema."""
    return "/".join([place, *(str(name).replace("~", "~0").replace("/", "~1") for name in names)])


def _discriminator(schema: dict[str, Any]) -> object:
    """The name by which the schema's alternatives differ, as OpenAPI has it."""
    named = schema.get("discriminator")
    combined = "oneOf" in schema or "anyOf" in schema
    return named.get("propertyName") if combined and isinstance(named, dict) else None


def _joined(parts: list[list[Conjunction]], place: str) -> list[Conjunction]:
    count = 1
    for part in parts:
        count *= len(part)
    if count > MAX_ALTERNATIVES:
        raise SchemaRefused(
            f"the schema at {place} has {count} alternatives; it may have {MAX_ALTERNATIVES}"
        )
    # Each place once, in the order of reading.
    joined = (
        tuple(dict.fromkeys(each for flat in one for each in flat)) for one in product(*parts)
    )
    return list(dict.fromkeys(joined))


def _within(schema: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return
    yield place, schema
    for name, value in schema.items():
        form = KEYWORDS[name].form if name in KEYWORDS else Form.ANYTHING
        if form is Form.NAMED_SCHEMAS and isinstance(value, dict):
            for each, inner in value.items():
                yield from _within(inner, below(place, name, each))
        elif form in (Form.SCHEMA, Form.SCHEMAS, Form.SCHEMA_OR_SCHEMAS):
            if isinstance(value, list):
                for i, inner in enumerate(value):
                    yield from _within(inner, below(place, name, i))
            yield from _within(value, below(place, name))
