"""PriceService."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from headrace.admin.v1 import prices_pb2 as pb
from headrace.admin.v1.prices_pb2_grpc import PriceServiceServicer
from headrace.errors import InvalidRequest
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.resource_names import id_in
from headrace_control.api.tenancy import fields, rules
from headrace_control.base.records import Price
from headrace_control.store import PageOptions

MAX_NANOS = 10**12
"""Of one token: a thousand units of the currency. So sums of a month fit into 64 bits."""


class PriceService(PriceServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._prices = parts.store.prices

    async def CreatePrice(self, request: pb.CreatePriceRequest, context: Context) -> pb.Price:
        price = _price_in(request.price)
        return _message(await self._prices.create(price, by=rules.actor(current_caller())))

    async def GetPrice(self, request: pb.GetPriceRequest, context: Context) -> pb.Price:
        return _message(await self._prices.get(id_in(request.name, "prices/{price}")))

    async def ListPrices(
        self, request: pb.ListPricesRequest, context: Context
    ) -> pb.ListPricesResponse:
        page = await self._prices.list(
            model=request.model,
            currency=request.currency,
            options=PageOptions(request.page_size, request.page_token),
        )
        return pb.ListPricesResponse(
            prices=map(_message, page.items), next_page_token=page.next_page_token
        )

    async def DeletePrice(self, request: pb.DeletePriceRequest, context: Context) -> Empty:
        price_id = id_in(request.name, "prices/{price}")
        await self._prices.delete(price_id, by=rules.actor(current_caller()))
        return Empty()


def _price_in(message: pb.Price) -> Price:
    """Raises:
    InvalidRequest: a field is missing or out of its range.
    """
    (model,) = fields.models([message.model], "price.model")
    has_cached = message.HasField("cached_input_nanos")
    has_time = message.HasField("valid_from_time")
    time_field = "price.valid_from_time"
    return Price(
        model=model,
        currency=fields.currency(message.currency, "price.currency"),
        valid_from=fields.time_in(message.valid_from_time, time_field) if has_time else None,
        input_nanos=_nanos(message.input_nanos, "price.input_nanos"),
        cached_input_nanos=_nanos(
            message.cached_input_nanos if has_cached else message.input_nanos,
            "price.cached_input_nanos",
        ),
        output_nanos=_nanos(message.output_nanos, "price.output_nanos"),
    )


def _nanos(value: int, field: str) -> int:
    if value > MAX_NANOS:
        raise InvalidRequest(
            f"{field} is {value}; it must be 0 to {MAX_NANOS} nano-units a token", field=field
        )
    return value


def _message(price: Price) -> pb.Price:
    return pb.Price(
        name=f"prices/{price.price_id}",
        model=price.model,
        currency=price.currency,
        valid_from_time=fields.timestamp(price.valid_from),
        input_nanos=price.input_nanos,
        cached_input_nanos=price.cached_input_nanos,
        output_nanos=price.output_nanos,
        create_time=fields.timestamp(price.create_time),
    )
