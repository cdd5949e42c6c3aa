"""A background request's result comes once, whatever it is; only outages are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from headrace.client.background import AsyncBackgroundRequest, BackgroundRequest
from headrace.client.unreachable import ConnectionLost, MeshUnreachable
from headrace.errors import HeadraceError, PatienceExhausted
from headrace.rpc.status import to_status
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, Request


class Mesh:
    """Stands in for a client: fails with `outages` first, then has a request that ended."""

    def __init__(self, *outages: HeadraceError, ended_with: HeadraceError | None = None) -> None:
        self._outages: Iterator[HeadraceError] = iter(outages)
        self._request = Request(request_id="r", state=REQUEST_STATE_ENDED)
        if ended_with is not None:
            self._request.outcome.error.CopyFrom(to_status(ended_with))

    def get_request(self, request_id: str, *, wait_s: float) -> Request:
        if (error := next(self._outages, None)) is not None:
            raise error
        return self._request


class AsyncMesh(Mesh):
    async def get_request(self, request_id: str, *, wait_s: float) -> Request:  # type: ignore[override]
        return super().get_request(request_id, wait_s=wait_s)


def result(*outages: HeadraceError, ended_with: HeadraceError | None, awaited: bool) -> Any:
    if awaited:
        client = cast(Any, AsyncMesh(*outages, ended_with=ended_with))
        return asyncio.run(AsyncBackgroundRequest(client, "r").result(timeout_s=0.5))
    blocking = cast(Any, Mesh(*outages, ended_with=ended_with))
    return BackgroundRequest(blocking, "r").result(timeout_s=0.5)


@pytest.mark.parametrize("awaited", [False, True])
def test_what_it_ended_with_is_raised_though_it_is_a_want_of_capacity(*, awaited: bool) -> None:
    with pytest.raises(PatienceExhausted, match="late"):
        result(ended_with=PatienceExhausted("late"), awaited=awaited)


@pytest.mark.parametrize("awaited", [False, True])
def test_what_does_not_pass_is_raised(*, awaited: bool) -> None:
    wrong = MeshUnreachable("the certificate is not trusted", may_pass=False)
    with pytest.raises(MeshUnreachable, match="certificate"):
        result(*[wrong] * 99, ended_with=None, awaited=awaited)


@pytest.mark.parametrize("awaited", [False, True])
def test_an_outage_is_waited_for(*, awaited: bool) -> None:
    assert result(ConnectionLost("lost"), ended_with=None, awaited=awaited).request_id == "r"
