"""JSON bodies that are held to their fields: what is unknown, not served or without effect."""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from headrace_gateway.api.bodies.unknown_fields import UnknownFields, split_known
from headrace_gateway.api.bodies.unsupported_fields import IgnoredFields, UnsupportedFields

UNSUPPORTED = "unsupported"
"""Type of the errors that become Unsupported."""


def _without_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_without_fraction)]
"""A whole number, also as 1.0: what passes through Gson, Lua or R comes so."""


class StrictBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    UNSUPPORTED_FIELDS: ClassVar[UnsupportedFields] = {}
    IGNORED_FIELDS: ClassVar[IgnoredFields] = {}
    PATH: ClassVar[str] = ""
    """Before the names of unknown fields: `messages[].`."""

    @model_validator(mode="before")
    @classmethod
    def _only_fields_that_work(cls, data: object, info: ValidationInfo) -> object:
        """Why here: pydantic would collect an error for each of a million unknown fields."""
        if not isinstance(data, dict):
            return data
        unknown = unknown_fields(info)
        kept, refused = split_known(data, _known(cls), cls.PATH, unknown)
        if refused is not None:
            raise PydanticCustomError("unknown_field", "{name}", {"name": refused})
        for name in kept.keys() & cls.UNSUPPORTED_FIELDS.keys():
            value, rule = kept[name], cls.UNSUPPORTED_FIELDS[name]
            if value is not None and not _is_neutral(value, rule.neutral):
                raise PydanticCustomError(
                    UNSUPPORTED,
                    "{name} is not served: {why}",
                    {"name": name, "why": rule.why, "field": name},
                )
        unknown.ignored |= {n for n in kept.keys() & cls.IGNORED_FIELDS if kept[n] is not None}
        return {name: value for name, value in kept.items() if name in cls.model_fields}


class RequestBody(StrictBody):
    """The body of a call, which names its model."""

    model: str


OptionalModel = Annotated[str, BeforeValidator(lambda name: name or "")]
"""Empty where the caller names none, as servers of one model allow."""


@cache
def _known(kind: type[StrictBody]) -> frozenset[str]:
    return frozenset((*kind.model_fields, *kind.UNSUPPORTED_FIELDS, *kind.IGNORED_FIELDS))


def unknown_fields(info: ValidationInfo) -> UnknownFields:
    """Where fields are noted that do nothing."""
    return info.context if isinstance(info.context, UnknownFields) else UnknownFields()


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    # Why the types: True == 1 in Python, and is not the same in JSON.
    return any(value == one and type(value) is type(one) for one in neutral)


def field_error(field: str, fact: str) -> PydanticCustomError:
    """What a validator of a whole body raises of one of its fields."""
    return PydanticCustomError("wrong", "{fact}", {"fact": fact, "field": field})
