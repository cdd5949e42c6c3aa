"""Clients that require every token once, in order, and one finish without error."""

from __future__ import annotations

import asyncio

import grpc

from headrace.errors import CapacityError, ModelNotFound
from headrace.rpc.status import from_rpc_error
from headrace.v1 import common_pb2, generation_pb2, generation_pb2_grpc

_AGAIN_AFTER_S = 0.2
_PROBE = 99


class Clients:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)
        self.refused = 0
        self.under_way: set[int] = set()

    async def is_served(self) -> bool:
        """Whether the model is known by now; then a token of it has come."""
        try:
            return bool(await self.generate(_PROBE, 1))
        except ModelNotFound:
            return False

    async def generate(self, number: int, tokens: int) -> list[int]:
        """Retry until admitted; return the token ids of a stream without gap, repeat or error."""
        while True:
            try:
                return await self._stream(number, tokens)
            except CapacityError:
                self.refused += 1
                await asyncio.sleep(_AGAIN_AFTER_S)

    async def _stream(self, number: int, tokens: int) -> list[int]:
        ids: list[int] = []
        ends = 0
        call = self._stub.StreamGenerate(
            generation_pb2.GenerateRequest(
                model="scripted",
                prompt_token_ids=[5, 6, number],
                parameters=common_pb2.SamplingParameters(
                    max_tokens=tokens, temperature=0, ignore_eos=True
                ),
            )
        )
        try:
            async for event in call:
                assert not event.finish.HasField("error"), event
                assert not event.delta.token_ids or event.delta.first_index == len(ids)
                ids += event.delta.token_ids
                ends += event.HasField("finish")
                self.under_way.add(number)
        except grpc.aio.AioRpcError as error:
            assert not ids, "a stream that had begun broke"
            raise from_rpc_error(error) from None
        assert (len(ids), ends) == (tokens, 1)
        return ids
