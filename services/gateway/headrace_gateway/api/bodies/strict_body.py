"""The base of JSON bodies: fields that are unknown, not served or without effect; priorities."""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal, LiteralString, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from headrace.v1.common_pb2 import Priority
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES
from headrace_gateway.api.bodies.unknown_fields import UnknownFields, split_known
from headrace_gateway.api.bodies.unsupported_fields import IgnoredFields, UnsupportedFields

UNSUPPORTED = "unsupported"
"""Type of the errors that become Unsupported."""


def _without_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_UINT32 = 2**32 - 1
WholeNumber = Annotated[int, BeforeValidator(_without_fraction)]
"""A whole number, also as 1.0: what passes through Gson, Lua or R comes so."""
Unsigned = Annotated[WholeNumber, Field(ge=0, le=_UINT32)]
Count = Annotated[WholeNumber, Field(ge=-_UINT32, le=_UINT32)]
"""Also below 0, which is refused later, with the range."""
ENTRIES = Field(fail_fast=True, max_length=MAX_ENTRIES)
"""The bound of a list; the first wrong entry is the only one that is reported."""

_PRIORITIES = {
    "auto": Priority.PRIORITY_UNSPECIFIED,
    "default": Priority.PRIORITY_STANDARD,
    "flex": Priority.PRIORITY_BULK,
    "priority": Priority.PRIORITY_INTERACTIVE,
}


class StrictBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    UNSUPPORTED_FIELDS: ClassVar[UnsupportedFields] = {}
    IGNORED_FIELDS: ClassVar[IgnoredFields] = {}
    PATH: ClassVar[str] = ""
    """Before the names of unknown fields: `messages[].`."""

    @model_validator(mode="before")
    @classmethod
    def _only_fields_that_work(cls, data: object, info: ValidationInfo) -> object:
        """Refuse unknown fields and those that are not served, and remove ignored ones.

        Why here: pydantic would collect an error for each of a million unknown fields.
        """
        if not isinstance(data, dict):
            return data
        unknown = unknown_fields(info)
        kept, refused = split_known(data, _known(cls), cls.PATH, unknown)
        if refused is not None:
            raise PydanticCustomError("unknown_field", "{name}", {"name": refused})
        for name in kept.keys() & cls.UNSUPPORTED_FIELDS.keys():
            value, rule = kept[name], cls.UNSUPPORTED_FIELDS[name]
            if value is not None and not is_neutral(value, rule.neutral):
                raise field_error(name, f"{name} is not served: {rule.why}", kind=UNSUPPORTED)
        unknown.ignored |= {n for n in kept.keys() & cls.IGNORED_FIELDS if kept[n] is not None}
        return {name: value for name, value in kept.items() if name in cls.model_fields}


class RequestBody(StrictBody):
    """The body of a call, which names its model."""

    model: str


class PrioritizedBody(RequestBody):
    """The body of a call whose requests wait in a lane."""

    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    """OpenAI's."""
    priority: Annotated[WholeNumber, Field(ge=-(2**63), lt=2**63)] | None = None
    """vLLM's, where the lower goes first: below 0 is interactive, above it bulk."""
    user: str | None = None

    @model_validator(mode="after")
    def _has_one_priority(self) -> Self:
        if self.priority and self.service_tier not in (None, "auto"):
            raise field_error("priority", "is set beside service_tier; one may be")
        return self

    @property
    def lane_priority(self) -> Priority.ValueType:
        """Return vLLM's priority unless it is 0, which means none; else OpenAI's tier."""
        if not self.priority:
            return _PRIORITIES[self.service_tier or "auto"]
        return _PRIORITIES["priority" if self.priority < 0 else "flex"]

    @property
    def priority_field(self) -> str:
        """Return the field that the priority came from."""
        return "priority" if self.priority else "service_tier"


OptionalModel = Annotated[str, BeforeValidator(lambda name: name or "")]
"""Empty where the caller names none, as servers of one model allow."""


@cache
def _known(kind: type[StrictBody]) -> frozenset[str]:
    return frozenset((*kind.model_fields, *kind.UNSUPPORTED_FIELDS, *kind.IGNORED_FIELDS))


def unknown_fields(info: ValidationInfo) -> UnknownFields:
    """Return where the fields without effect are noted."""
    return info.context if isinstance(info.context, UnknownFields) else UnknownFields()


def is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    """Return whether a field's value means that it is not used."""
    # Why the types: True == 1 in Python, and is not the same in JSON.
    return any(value == one and type(value) is type(one) for one in neutral)


def field_error(field: str, fact: str, *, kind: LiteralString = "wrong") -> PydanticCustomError:
    """Return what a validator of a whole body raises of one of its fields."""
    return PydanticCustomError(kind, "{fact}", {"fact": fact, "field": field})
