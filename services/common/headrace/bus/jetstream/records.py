"""Model cards, tokenizer bundles and results."""

from __future__ import annotations

from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.object_store import ObjectStore

from headrace.bus import RESULT_KEPT_S, BusUnavailable, subjects
from headrace.bus.jetstream.connection import Connected, OpenSubscription
from headrace.bus.jetstream.stores import CARD_BUCKET, RESULT_STREAM, TOKENIZER_BUCKET
from headrace.heeding import heeding


class StoredCards(Connected):
    """Implements `headrace.bus.Cards`."""

    @heeding
    async def put_card(self, model: str, card: bytes) -> None:
        try:
            await self._kv[CARD_BUCKET].put(model, card)
        except nats.errors.Error as error:
            raise BusUnavailable(f"model card {model}: {error or 'no answer'}") from error

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> OpenSubscription:
        prefix = f"$KV.{CARD_BUCKET}."

        async def receive(message: Msg) -> None:
            if message.data:
                on_card(message.subject.removeprefix(prefix), message.data)

        # An ordered consumer: made anew by the client after a gap or a reconnect.
        inner = await self._js.subscribe(f"{prefix}>", cb=receive, ordered_consumer=True)
        return OpenSubscription(inner)

    @heeding
    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        try:
            store = await self._objects()
            try:
                await store.get_info(digest)
            except nats.js.errors.NotFoundError:
                await store.put(digest, bundle)
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error

    @heeding
    async def get_tokenizer(self, digest: str) -> bytes:
        try:
            found = (await (await self._objects()).get(digest)).data
        except nats.js.errors.NotFoundError as error:
            raise KeyError(digest) from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error
        return found or b""

    async def _objects(self) -> ObjectStore:
        return await self._js.object_store(TOKENIZER_BUCKET)


class StoredResults(Connected):
    """Implements `headrace.bus.Results`."""

    @heeding
    async def put_result(self, request_id: str, record: bytes, *, kept_s: float = 0.0) -> None:
        await self._store(subjects.result(request_id), record, ttl_s=kept_s or RESULT_KEPT_S)

    @heeding
    async def get_result(self, request_id: str) -> bytes | None:
        try:
            found = await self._js.get_last_msg(RESULT_STREAM, subjects.result(request_id))
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise BusUnavailable(f"result {request_id}: {error or 'no answer'}") from error
        return found.data
