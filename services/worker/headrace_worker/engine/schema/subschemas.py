"""The subschemas of a schema by JSON pointer, and which must hold together. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any
from urllib.parse import unquote

from headrace_worker.engine.schema.keywords import (
    KEYWORDS,
    MAX_COUNT,
    Form,
    SchemaRefused,
    check_keywords,
)

Key = tuple[str, ...]
"""Pointers of the subschemas that must all hold; the empty one allows any value."""

MAX_ALTERNATIVES = 256
_REFERENCES = ("$ref", "$dynamicRef")


@dataclass(frozen=True, slots=True)
class Members:
    """The subschemas of a conjunction, by pointer."""

    schemas: dict[str, dict[str, Any]]

    @property
    def where(self) -> str:
        return " and ".join(self.schemas)

    def values(self, keyword: str) -> list[Any]:
        """Return the keyword's values in the members that have it."""
        return [schema[keyword] for schema in self.schemas.values() if keyword in schema]

    def have(self, *keywords: str) -> bool:
        """Return whether any member has any of the keywords."""
        return any(keyword in schema for schema in self.schemas.values() for keyword in keywords)

    def least(self, keyword: str) -> int:
        """Return the count that the keyword requires; 0 without it."""
        return int(max(self.values(keyword), default=0))

    def most(self, keyword: str) -> int | None:
        """Return the count that the keyword allows; None if it is unbounded."""
        counts = (int(value) for value in self.values(keyword) if value <= MAX_COUNT)
        return min(counts, default=None)

    def first_with(self, keyword: str) -> str:
        """Return the pointer of the first member that has the keyword, or else of the first."""
        having = (pointer for pointer, schema in self.schemas.items() if keyword in schema)
        return next(having, next(iter(self.schemas), "#"))


class Subschemas:
    """Subschemas by JSON pointer, as `#/properties/a`; each is checked when first read."""

    def __init__(self, root: dict[str, Any]) -> None:
        """Raises SchemaRefused for identifiers below the root."""
        self._known: dict[str, dict[str, Any] | bool] = {}
        self._conjunctions: dict[str, list[Key]] = {}
        self._in_progress: set[str] = set()
        self._root = root
        self._anchors: dict[str, str] = {}
        self._base = str(root.get("$id", "")).partition("#")[0]
        for pointer, schema in _walk(root, "#"):
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := schema.get(name), str):
                    self._anchors[anchor] = pointer
            if pointer != "#" and isinstance(schema.get("$id"), str) and schema["$id"][:1] != "#":
                raise SchemaRefused(
                    f"$id at {pointer} cannot be enforced; only the root may have one"
                )

    def get(self, pointer: str) -> dict[str, Any] | bool:
        """Return a subschema. Raises SchemaRefused if there is none, or it cannot be enforced."""
        if pointer not in self._known:
            self._known[pointer] = self._find(pointer)
        return self._known[pointer]

    def require(self, pointer: str, names: list[str]) -> None:
        """From now on the subschema also requires these names."""
        schema = self.get_object(pointer)
        self._known[pointer] = {**schema, "required": [*schema.get("required", ()), *names]}
        self._conjunctions.clear()

    def get_object(self, pointer: str) -> dict[str, Any]:
        """Return a member of a conjunction, which is never true or false."""
        schema = self.get(pointer)
        assert isinstance(schema, dict)
        return schema

    def members(self, conjunction: Key) -> Members:
        return Members({pointer: self.get_object(pointer) for pointer in conjunction})

    def alternatives(self, pointers: tuple[str, ...]) -> list[Key]:
        """Return conjunctions, each of which is enough; none if nothing satisfies them.

        Raises:
            SchemaRefused: a reference is invalid, or there are too many alternatives.
        """
        return _joined([self._expanded(pointer) for pointer in pointers], " and ".join(pointers))

    def _expanded(self, pointer: str) -> list[Key]:
        if pointer in self._in_progress:
            raise SchemaRefused(
                f"the schema at {pointer} refers to itself, without anything between"
            )
        # Kept: what is referred to twice at each of many levels would be read without end.
        if pointer not in self._conjunctions:
            self._in_progress.add(pointer)
            self._conjunctions[pointer] = self._expand(pointer)
            self._in_progress.discard(pointer)
        return self._conjunctions[pointer]

    def _expand(self, pointer: str) -> list[Key]:
        schema = self.get(pointer)
        if isinstance(schema, bool):
            return [()] if schema else []
        discriminator = schema.get("discriminator")
        if isinstance(discriminator, dict) and ("oneOf" in schema or "anyOf" in schema):
            # OpenAPI's name, which distinguishes the alternatives.
            name = discriminator.get("propertyName")
            if isinstance(name, str) and name not in schema.get("required", ()):
                self.require(pointer, [name])
        parts: list[list[Key]] = [[(pointer,)]]
        for name in _REFERENCES:
            if name in schema:
                parts.append(self._expanded(self._target(schema[name], f"{name} at {pointer}")))
        for i in range(len(schema.get("allOf", ()))):
            parts.append(self._expanded(f"{pointer}/allOf/{i}"))
        for name in ("anyOf", "oneOf"):
            if name in schema:
                each = (self._expanded(f"{pointer}/{name}/{i}") for i in range(len(schema[name])))
                parts.append(list(dict.fromkeys(chain.from_iterable(each))))
        return _joined(parts, pointer)

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

    def _find(self, pointer: str) -> dict[str, Any] | bool:
        found: Any = self._root
        for name in pointer.split("/")[1:]:
            if isinstance(found, dict):
                found = found.get(name.replace("~1", "/").replace("~0", "~"))
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise KeyError(pointer)
        if isinstance(found, dict):
            check_keywords(found, pointer)
        if isinstance(found, dict | bool):
            return found
        raise KeyError(pointer)


def key_of(pointers: Iterable[str | None]) -> Key:
    """Return the key of the subschemas at these pointers, each once; None stands for none."""
    return tuple(dict.fromkeys(each for each in pointers if each is not None))


def child_pointer(pointer: str, *names: str | int) -> str:
    """Return the pointer of a child."""
    return "/".join([pointer, *(str(name).replace("~", "~0").replace("/", "~1") for name in names)])


def _joined(parts: list[list[Key]], pointer: str) -> list[Key]:
    if (count := math.prod(map(len, parts))) > MAX_ALTERNATIVES:
        raise SchemaRefused(
            f"the schema at {pointer} has {count} alternatives; it may have {MAX_ALTERNATIVES}"
        )
    # Each place once, in the order of reading.
    return list(dict.fromkeys(key_of(chain.from_iterable(one)) for one in product(*parts)))


def _walk(schema: object, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for name, value in schema.items():
        form = KEYWORDS[name].form if name in KEYWORDS else Form.ANYTHING
        if form is Form.NAMED_SCHEMAS and isinstance(value, dict):
            for each, inner in value.items():
                yield from _walk(inner, child_pointer(pointer, name, each))
        elif form in (Form.SCHEMA, Form.SCHEMAS, Form.SCHEMA_OR_SCHEMAS):
            if isinstance(value, list):
                for i, inner in enumerate(value):
                    yield from _walk(inner, child_pointer(pointer, name, i))
            yield from _walk(value, child_pointer(pointer, name))
