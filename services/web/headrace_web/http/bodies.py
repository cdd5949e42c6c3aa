"""Bodies of the page's calls."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from headrace.errors import BodyTooLarge, InvalidRequest

B = TypeVar("B", bound="Body")

Id = Annotated[str, Field(pattern=r"^[0-9a-z]{24}$")]
"""Made by the page, so that a call that is sent again changes nothing."""
Tag = Annotated[str, Field(min_length=1, max_length=40)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewConversation(Body):
    conversation_id: Id
    title: str = Field(default="", max_length=200)
    system: str = ""
    model: str = Field(default="", max_length=256)
    parameters: dict[str, Any] = {}
    scene: str = Field(default="", max_length=64)


class ChangedConversation(Body):
    """What is absent stays."""

    title: str | None = Field(default=None, max_length=200)
    system: str | None = None
    model: str | None = Field(default=None, max_length=256)
    parameters: dict[str, Any] | None = None
    leaf: Id | None = None
    pinned: bool | None = None
    tags: list[Tag] | None = Field(default=None, max_length=20)


class Question(Body):
    """A person's turn and the answer to it; without `question_id`, another answer to `parent`."""

    question_id: Id | None = None
    content: str = ""
    parent: Id | None = None
    """Turn that it follows; absent: it is a first one."""
    answer_id: Id
    model: str = Field(min_length=1, max_length=256)
    parameters: dict[str, Any] = {}
    seed: str | None = Field(default=None, pattern=r"^[0-9]{1,20}$")
    """Absent: random."""


async def read_body(request: Request, kind: type[B], max_bytes: int) -> B:
    """Return the body of a call.

    Raises:
        InvalidRequest: it is not JSON, or has other fields.
        BodyTooLarge: it has more bytes.
    """
    kind_of_body = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind_of_body != "application/json":
        raise InvalidRequest("the body must be application/json", field="content-type")
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes")
    try:
        return kind.model_validate_json(bytes(found))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        fact = f"{field}: {first['msg']}" if field else str(first["msg"])
        raise InvalidRequest(fact, field=field or None) from None
