"""What the commands for people have in common: roles, people by id or address, one call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import click
import grpc
from rich.markup import escape

from headrace.admin.v1 import people_pb2 as pb
from headrace.admin.v1.people_pb2_grpc import PersonServiceStub
from headrace.cli.admin.access.values import day_text, pages
from headrace.cli.console import terminal
from headrace.errors import ResourceNotFound

T = TypeVar("T")

role_choice = click.Choice(["viewer", "member", "admin", "owner"])


def role_value(role: str) -> pb.Role.ValueType:
    return pb.Role.Value(f"ROLE_{role.upper()}")


def role_name(role: pb.Role.ValueType) -> str:
    return pb.Role.Name(role).removeprefix("ROLE_").lower()


async def all_people(channel: grpc.aio.Channel) -> list[pb.Person]:
    stub: Any = PersonServiceStub(channel)

    async def page(size: int, token: str) -> pb.ListPeopleResponse:
        request = pb.ListPeopleRequest(page_size=size, page_token=token)
        answer: pb.ListPeopleResponse = await stub.ListPeople(request)
        return answer

    return [each async for found in pages(page) for each in found.people]


async def person_name(channel: grpc.aio.Channel, who: str) -> str:
    """Return people/ID of a person who is named by id or by e-mail address.

    Raises:
        ResourceNotFound: no person has this address.
    """
    if "@" not in who:
        return f"people/{who.removeprefix('people/')}"
    for person in await all_people(channel):
        if person.email.lower() == who.lower():
            return person.name
    raise ResourceNotFound(f"no person has the e-mail address {who}")


def print_rows(rows: Sequence[dict[str, object]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list: as JSON, or those fields of it as a table."""
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = terminal.table(*(column.replace("_", " ") for column in columns))
    for row in rows:
        table.add_row(*(escape(_cell(column, row[column])) for column in columns))
    terminal.console().print(table if rows else "there are none")


def _cell(column: str, value: object) -> str:
    if value is None or value == "" or value is False:
        return "-"
    text = "yes" if value is True else str(value)
    return day_text(text) if column in _TIMES else text


_TIMES = ("created", "expires", "last_sign_in")
