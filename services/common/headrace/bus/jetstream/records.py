"""Model cards, tokenizer bundles and results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from headrace.bus import RESULT_KEPT_S, BusUnavailable, subjects
from headrace.bus.jetstream.connection import Connected, OpenSubscription
from headrace.bus.jetstream.stores import (
    CARD_BUCKET,
    RESULT_STREAM,
    TOKENIZER_BUCKET,
    WRONG_LAST_SEQUENCE,
)
from headrace.cancellation import rechecking_cancelled
from headrace.model_names import lane_id


class StoredCards(Connected):
    """Implements `headrace.bus.Cards`."""

    @rechecking_cancelled
    async def put_card(self, model: str, card: bytes) -> None:
        try:
            await (await self._bucket_of_cards()).put(lane_id(model), card)
        except nats.errors.Error as error:
            raise _card_out_of_reach(model, error) from error

    @rechecking_cancelled
    async def get_card(self, model: str) -> bytes | None:
        found = await self._card(model)
        return None if found is None else found.value

    @rechecking_cancelled
    async def replace_card(self, model: str, card: bytes, successor: bytes | None) -> bool:
        found = await self._card(model)
        if found is None or found.value != card:
            return False
        subject = f"$KV.{CARD_BUCKET}.{lane_id(model)}"
        headers = {"Nats-Expected-Last-Subject-Sequence": str(found.revision)}
        if successor is None:
            headers["KV-Operation"] = "DEL"
        try:
            await self._js.publish(subject, successor or b"", headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                return False
            raise _card_out_of_reach(model, error) from error
        except nats.errors.Error as error:
            raise _card_out_of_reach(model, error) from error
        return True

    @rechecking_cancelled
    async def all_cards(self) -> list[bytes]:
        # Why not `bucket.keys()`: it finds none now and then, where the broker has delivered all
        # keys before the client asks how many there are.
        prefix, found = f"$KV.{CARD_BUCKET}.", list[bytes]()
        try:
            bucket = await self._bucket_of_cards()
            stored = await self._js.stream_info(f"KV_{CARD_BUCKET}", subjects_filter=f"{prefix}>")
            for subject in sorted(stored.state.subjects or ()):
                with contextlib.suppress(nats.js.errors.NotFoundError):  # it is deleted
                    entry = await bucket.get(subject.removeprefix(prefix))
                    found.append(entry.value or b"")
        except nats.js.errors.NotFoundError:
            return []  # nor is there a bucket before the first process has made it
        except nats.errors.Error as error:
            raise BusUnavailable(f"model cards: {error or 'no answer'}") from error
        return found

    async def _card(self, model: str) -> KeyValue.Entry | None:
        try:
            return await (await self._bucket_of_cards()).get(lane_id(model))
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise _card_out_of_reach(model, error) from error

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> OpenSubscription:
        prefix = f"$KV.{CARD_BUCKET}."

        async def receive(message: Msg) -> None:
            on_card(message.subject.removeprefix(prefix), message.data)

        # An ordered consumer: made anew by the client after a gap or a reconnect.
        inner = await self._js.subscribe(f"{prefix}>", cb=receive, ordered_consumer=True)
        return OpenSubscription(inner)

    @rechecking_cancelled
    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        try:
            store = await self._objects()
            try:
                await store.get_info(digest)
            except nats.js.errors.NotFoundError:
                await store.put(digest, bundle)
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error

    @rechecking_cancelled
    async def get_tokenizer(self, digest: str) -> bytes:
        try:
            found = (await (await self._objects()).get(digest)).data
        except nats.js.errors.NotFoundError as error:
            raise KeyError(digest) from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"tokenizer {digest}: {error or 'no answer'}") from error
        return found or b""

    async def _bucket_of_cards(self) -> KeyValue:
        return self._kv.get(CARD_BUCKET) or await self._js.key_value(CARD_BUCKET)

    async def _objects(self) -> ObjectStore:
        return await self._js.object_store(TOKENIZER_BUCKET)


def _card_out_of_reach(model: str, error: nats.errors.Error) -> BusUnavailable:
    return BusUnavailable(f"model card {model}: {error or 'no answer'}")


class StoredResults(Connected):
    """Implements `headrace.bus.Results`."""

    @rechecking_cancelled
    async def put_result(self, request_id: str, record: bytes, *, kept_s: float = 0.0) -> None:
        await self._store(subjects.result(request_id), record, ttl_s=kept_s or RESULT_KEPT_S)

    @rechecking_cancelled
    async def get_result(self, request_id: str) -> bytes | None:
        try:
            found = await self._js.get_last_msg(RESULT_STREAM, subjects.result(request_id))
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise BusUnavailable(f"result {request_id}: {error or 'no answer'}") from error
        return found.data
