"""headrace price"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape

from headrace.admin.v1 import prices_pb2 as pb
from headrace.admin.v1 import tenants_pb2
from headrace.admin.v1.prices_pb2_grpc import PriceServiceStub
from headrace.admin.v1.tenants_pb2_grpc import TenantServiceStub
from headrace.billing.money import amount_text, nanos_of
from headrace.cli.admin.access.values import last_part, pages, shown_time
from headrace.cli.console import terminal
from headrace.cli.console.admin_api import admin_api, call_admin_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.errors import HeadraceError

T = TypeVar("T")

_MULTIPLES = {"": 1, "K": 1_000, "M": 1_000_000}
_SHOWN_PER = 1_000_000
_NAMED = 10
"""Most models or currencies that a warning names."""


class Count(click.ParamType[int]):
    """A number of tokens, as 1M, 1K or 1."""

    name = "tokens"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if (found := re.fullmatch(r"([1-9][0-9]{0,9})([KM]?)", value.upper())) is None:
            self.fail(f"{value!r} is no number of tokens; write one as 1M, 1K or 1")
        return int(found[1]) * _MULTIPLES[found[2]]


class Time(click.ParamType[datetime]):
    """A day, which begins in UTC, or a time."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write one as 2026-12-01 or 2026-12-01T08:00:00+01:00")
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.group()
def price() -> None:
    """Set, list or delete prices: what tokens of a model cost, from a time on."""


_currency = click.option("--currency", default="USD", help="ISO 4217, as EUR.")
_from = "Day, as 2026-12-01, which begins in UTC, or time, as 2026-12-01T08:00:00+01:00."


@price.command("set")
@click.argument("model")
@click.option("--input", "input_price", required=True, help="Price of input tokens, as 0.15.")
@click.option("--output", "output_price", required=True, help="Price of output tokens, as 0.60.")
@click.option("--cached-input", help="Price of cached input tokens. Default: that of --input.")
@click.option("--per", type=Count(), default="1M", help="How many tokens cost that: 1M, 1K or 1.")
@_currency
@click.option("--from", "valid_from", type=Time(), help=f"{_from} Default: now.")
@json_option
@mesh_options
def set_price(mesh: MeshTarget, model: str, as_json: bool, **options: Any) -> None:
    """Set what tokens of MODEL cost from a time on.

    A price holds until the next one does, and never changes once it is in force: what is used is
    billed by the price of its time.
    """
    message = pb.Price(
        model=model,
        currency=options["currency"],
        input_nanos=_nanos(options["input_price"], options["per"], "--input"),
        output_nanos=_nanos(options["output_price"], options["per"], "--output"),
        valid_from_time=_timestamp(options["valid_from"]),
    )
    if options["cached_input"] is not None:
        message.cached_input_nanos = _nanos(
            options["cached_input"], options["per"], "--cached-input"
        )
    request = pb.CreatePriceRequest(price=message)
    made = _call(mesh, lambda stub: stub.CreatePrice(request))
    for warning in asyncio.run(_warnings(mesh, made)):
        click.echo(f"headrace: {warning}", err=True)
    terminal.print_fields(_as_dict(made), as_json=as_json)


@price.command("list")
@click.option("--model", default="", show_default=False, help="Only of this model.")
@click.option("--currency", default="", show_default=False, help="Only in this currency.")
@click.option("--all", "show_past", is_flag=True, help="Prices too that later ones have replaced.")
@json_option
@mesh_options
def list_prices(
    mesh: MeshTarget, model: str, currency: str, show_past: bool, as_json: bool
) -> None:
    """List prices: those in force and those to come."""
    found = _call(mesh, lambda stub: _all_prices(stub, model, currency))
    if not show_past:
        found = _not_past(found, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found], indent=1))
        return
    table = terminal.table("model", "from", "currency", "input", "cached", "output", "per")
    for each in found:
        shown = _as_dict(each)
        columns = ("from", "currency", "input", "cached_input", "output", "per")
        table.add_row(escape(each.model), *(str(shown[column]) for column in columns))
    terminal.console().print(table if found else "there is no price")


@price.command()
@click.argument("model")
@_currency
@click.option("--from", "valid_from", type=Time(), required=True, help=_from)
@mesh_options
def delete(mesh: MeshTarget, model: str, currency: str, valid_from: datetime) -> None:
    """Delete the price of MODEL from a time on that has not come yet."""
    at = Timestamp()
    at.FromDatetime(valid_from)

    async def deleted(stub: Any) -> bool:
        for each in await _all_prices(stub, model, currency):
            if each.valid_from_time == at:
                await stub.DeletePrice(pb.DeletePriceRequest(name=each.name))
                return True
        return False

    which = f"in {currency} from {at.ToJsonString()} on"
    if not _call(mesh, deleted):
        raise click.ClickException(
            f"{model} has no price {which}; `headrace price list` shows currencies and times"
        )
    click.echo(f"the price of {model} {which} is deleted")


def _nanos(amount: str, per: int, option: str) -> int:
    try:
        found = nanos_of(amount, per=per)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if found < 0:
        raise click.BadParameter(f"{amount} is less than 0", param_hint=option)
    return found


async def _warnings(mesh: MeshTarget, made: pb.Price) -> list[str]:
    """Return what of a price may be a mistake; nothing where that cannot be asked."""
    found = []
    with contextlib.suppress(HeadraceError):
        # Why not the administrator's key: it may not use models.
        async with mesh.async_client() as client:
            names = sorted(model.name for model in await client.models())
        if made.model not in names:
            listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
            found.append(f"no model {made.model} is listed now; these are: {listed or 'none'}")
    with contextlib.suppress(HeadraceError):
        async with admin_api(mesh) as channel:
            request = tenants_pb2.ListTenantsRequest(page_size=1000)
            tenants = (await TenantServiceStub(channel).ListTenants(request)).tenants
        currencies = sorted({each.currency or "USD" for each in tenants})
        if currencies and made.currency not in currencies:
            found.append(
                f"no tenant is billed in {made.currency}, so nothing has this price; tenants have"
                f" {', '.join(currencies[:_NAMED])}"
            )
    return found


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    found = Timestamp()
    found.FromDatetime(time)
    return found


def _call(mesh: MeshTarget, call: Callable[[Any], Awaitable[T]]) -> T:
    return call_admin_api(mesh, lambda channel: call(PriceServiceStub(channel)))


async def _all_prices(stub: Any, model: str, currency: str) -> list[pb.Price]:
    async def page(size: int, token: str) -> pb.ListPricesResponse:
        request = pb.ListPricesRequest(
            page_size=size, page_token=token, model=model, currency=currency
        )
        answer: pb.ListPricesResponse = await stub.ListPrices(request)
        return answer

    return [each async for found in pages(page) for each in found.prices]


def _not_past(found: list[pb.Price], now: datetime) -> list[pb.Price]:
    """Return those that no later one in force has replaced; `found` is in their order."""
    following = [*found[1:], pb.Price()]
    return [
        each
        for each, later in zip(found, following, strict=True)
        if (each.model, each.currency) != (later.model, later.currency)
        or later.valid_from_time.ToDatetime(tzinfo=UTC) > now
    ]


def _as_dict(found: pb.Price) -> dict[str, object]:
    return {
        "price": last_part(found.name),
        "model": found.model,
        "currency": found.currency,
        "from": shown_time(found, "valid_from_time"),
        "input": amount_text(found.input_nanos * _SHOWN_PER),
        "cached_input": amount_text(found.cached_input_nanos * _SHOWN_PER),
        "output": amount_text(found.output_nanos * _SHOWN_PER),
        "per": "1M",
        "input_nanos": found.input_nanos,
        "cached_input_nanos": found.cached_input_nanos,
        "output_nanos": found.output_nanos,
        "created": shown_time(found, "create_time"),
    }
