"""PriceService over gRPC, and `headrace price`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import prices_pb2 as pb
from headrace.errors import FailedPrecondition, InvalidRequest, PermissionDenied
from helpers.command import headrace
from helpers.control_api import ControlApi, refused


async def test_operators_make_prices_and_administrators_read_them(admin: ControlApi) -> None:
    made = await admin.prices.CreatePrice(
        pb.CreatePriceRequest(price=pb.Price(model="valley", input_nanos=150, output_nanos=600))
    )
    assert (made.currency, made.cached_input_nanos) == ("USD", 150)
    assert made.HasField("valid_from_time")
    own = await admin.create_key("acme", scopes=["admin:*"], models=[])
    async with ControlApi(admin.port, own.secret) as acme:
        assert await acme.prices.GetPrice(pb.GetPriceRequest(name=made.name)) == made
        assert list((await acme.prices.ListPrices(pb.ListPricesRequest())).prices) == [made]
        for call in (
            acme.prices.CreatePrice(pb.CreatePriceRequest(price=pb.Price(model="valley"))),
            acme.prices.DeletePrice(pb.DeletePriceRequest(name=made.name)),
        ):
            assert isinstance(await refused(call), PermissionDenied)
    error = await refused(admin.prices.DeletePrice(pb.DeletePriceRequest(name=made.name)))
    assert isinstance(error, FailedPrecondition)


async def test_what_a_price_cannot_be_is_refused_with_the_field(admin: ControlApi) -> None:
    for price, field in (
        (pb.Price(), "price.model[0]"),
        (pb.Price(model="a", currency="dollars"), "price.currency"),
        (pb.Price(model="a", input_nanos=10**12 + 1), "price.input_nanos"),
        (pb.Price(model="a", cached_input_nanos=2**63), "price.cached_input_nanos"),
        (pb.Price(model="a", output_nanos=2**64 - 1), "price.output_nanos"),
        (pb.Price(model="a", valid_from_time=Timestamp(nanos=-1)), "price.valid_from_time"),
    ):
        error = await refused(admin.prices.CreatePrice(pb.CreatePriceRequest(price=price)))
        assert (type(error), error.field) == (InvalidRequest, field)


async def test_prices_are_set_listed_and_deleted_by_commands(
    admin: ControlApi, tmp_path: Path
) -> None:
    key = (tmp_path / "admin.key").read_text().strip()
    to = ("--url", f"http://127.0.0.1:{admin.port}", "--api-key", key)

    async def shown(*arguments: str) -> str:
        ran = await headrace(*arguments, *to, folder=tmp_path)
        assert ran.status == 0, ran.err
        return ran.out

    terms = ("--input", "0.15", "--output", "0.60", "--cached-input", "0.075", "--per", "1M")
    made = json.loads(await shown("price", "set", "valley", *terms, "--json"))
    assert (made["input_nanos"], made["cached_input_nanos"], made["output_nanos"]) == (150, 75, 600)
    assert (made["input"], made["per"]) == ("0.15", "1M")
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    later = ("valley", "--input", "0.0002", "--output", "1", "--per", "1k", "--from", day)
    made = json.loads(await shown("price", "set", *later, "--json"))
    assert (made["from"], made["input_nanos"]) == (f"{day}T00:00:00Z", 200)
    listed = json.loads(await shown("price", "list", "--json"))
    assert [each["output_nanos"] for each in listed] == [600, 1_000_000]
    assert "0.075" in await shown("price", "list")
    deleted = await shown("price", "delete", "valley", "--from", day)
    assert deleted.startswith("the price of valley in USD from ")
    assert len(json.loads(await shown("price", "list", "--all", "--json"))) == 1

    fine = ("--input", "0.0001", "--output", "1")
    refused = await headrace("price", "set", "valley", *fine, *to, folder=tmp_path)
    assert refused.status == 2
    assert "must be a whole number" in refused.err
