"""Model cards, tokenizer bundles, results, cached responses, conversations: buckets and streams."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from headrace.bus import RESULT_KEPT_S, BusUnavailable, subjects
from headrace.bus.jetstream.connection import (
    STORE_TIMEOUT_S,
    Connected,
    OpenSubscription,
    unavailable,
)
from headrace.bus.jetstream.stores import WRONG_LAST_SEQUENCE
from headrace.bus.objects import PartChanged, PartSize, StoredPart
from headrace.bus.stores import (
    CARD_BUCKET,
    CONVERSATION_STREAM,
    RESPONSE_STREAM,
    RESULT_STREAM,
    TOKENIZER_BUCKET,
)
from headrace.cancellation import rechecking_cancelled
from headrace.model_names import lane_id


class StoredCards(Connected):
    """Implements `headrace.bus.Cards`."""

    @rechecking_cancelled
    async def put_card(self, model: str, card: bytes) -> None:
        with unavailable(f"model card {model}"):
            await (await self._card_bucket()).put(lane_id(model), card)

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
        with unavailable(f"model card {model}"):
            try:
                await self._js.publish(subject, successor or b"", headers=headers)
            except nats.js.errors.APIError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    return False
                raise
        return True

    @rechecking_cancelled
    async def all_cards(self) -> list[bytes]:
        # Why not `bucket.keys()`: it finds none now and then, where the broker has delivered all
        # keys before the client requests their number.
        prefix, found = f"$KV.{CARD_BUCKET}.", list[bytes]()
        no_bucket = contextlib.suppress(nats.js.errors.NotFoundError)  # no process has created it
        with unavailable("model cards"), no_bucket:
            bucket = await self._card_bucket()
            stored = await self._js.stream_info(f"KV_{CARD_BUCKET}", subjects_filter=f"{prefix}>")
            for subject in sorted(stored.state.subjects or ()):
                with contextlib.suppress(nats.js.errors.NotFoundError):  # it is deleted
                    entry = await bucket.get(subject.removeprefix(prefix))
                    found.append(entry.value or b"")
        return found

    async def _card(self, model: str) -> KeyValue.Entry | None:
        with unavailable(f"model card {model}"):
            try:
                return await (await self._card_bucket()).get(lane_id(model))
            except nats.js.errors.NotFoundError:
                return None

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> OpenSubscription:
        prefix = f"$KV.{CARD_BUCKET}."

        async def receive(message: Msg) -> None:
            on_card(message.subject.removeprefix(prefix), message.data)

        # An ordered consumer, which the client creates again after a gap or a reconnect.
        inner = await self._js.subscribe(f"{prefix}>", cb=receive, ordered_consumer=True)
        return OpenSubscription(inner)

    @rechecking_cancelled
    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        with unavailable(f"tokenizer {digest}"):
            store = await self._objects()
            try:
                await store.get_info(digest)
            except nats.js.errors.NotFoundError:
                await store.put(digest, bundle)

    @rechecking_cancelled
    async def get_tokenizer(self, digest: str) -> bytes:
        with unavailable(f"tokenizer {digest}"):
            try:
                return (await (await self._objects()).get(digest)).data or b""
            except nats.js.errors.NotFoundError as error:
                raise KeyError(digest) from error

    async def _card_bucket(self) -> KeyValue:
        return self._kv.get(CARD_BUCKET) or await self._js.key_value(CARD_BUCKET)

    async def _objects(self) -> ObjectStore:
        return await self._js.object_store(TOKENIZER_BUCKET)


class StoredResponses(Connected):
    """Implements `headrace.bus.Responses`."""

    @rechecking_cancelled
    async def put_response(self, model: str, key: str, record: bytes, *, kept_s: float) -> None:
        await self._store(subjects.response(model, key), record, ttl_s=kept_s)

    @rechecking_cancelled
    async def get_response(self, model: str, key: str) -> bytes | None:
        with unavailable("a cached response"):
            try:
                subject = subjects.response(model, key)
                return (await self._js.get_last_msg(RESPONSE_STREAM, subject)).data
            except nats.js.errors.NotFoundError:
                return None

    @rechecking_cancelled
    async def purge_responses(self, model: str) -> None:
        with unavailable("cached responses"):
            subject = subjects.response(model, "*")
            await self._js.purge_stream(RESPONSE_STREAM, subject=subject)


class StoredConversations(Connected):
    """Implements `headrace.bus.Conversations`.

    Size and time of a part are in its subject, so that a tenant's are added up without reading
    them: the broker lists subjects, and deletes all but the newest of those that match.
    """

    async def put_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, kept_s: float
    ) -> None:
        await self._put_part((tenant, item_id, part), payload, {}, kept_s)

    async def replace_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, after: int, kept_s: float
    ) -> None:
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(after),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.conversation_part(
                tenant, item_id, part
            ),
        }
        await self._put_part((tenant, item_id, part), payload, headers, kept_s)
        if after:
            with unavailable(item_id):
                subject = subjects.conversation_part(tenant, item_id, part)
                await self._js.purge_stream(CONVERSATION_STREAM, subject=subject, keep=1)

    @rechecking_cancelled
    async def _put_part(
        self, place: tuple[str, str, str], payload: bytes, headers: dict[str, str], kept_s: float
    ) -> None:
        stamp = f"{time.time_ns() // 1_000_000}-{len(payload)}"
        subject = subjects.conversation_part(*place, stamp)
        with unavailable(subject):
            try:
                await self._js.publish(subject, payload, headers=headers or None, msg_ttl=kept_s)
            except nats.js.errors.APIError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    raise PartChanged(f"{place[1]} was stored by another process") from error
                raise

    @rechecking_cancelled
    async def get_part(self, tenant: str, item_id: str, part: str) -> StoredPart | None:
        subject = subjects.conversation_part(tenant, item_id, part)
        with unavailable(subject):
            try:
                found = await self._js.get_last_msg(CONVERSATION_STREAM, subject)
            except nats.js.errors.NotFoundError:
                return None
        return StoredPart(found.data or b"", found.seq or 0)

    @rechecking_cancelled
    async def delete_item(self, tenant: str, item_id: str) -> None:
        subject = subjects.conversation_part(tenant, item_id)
        with unavailable(subject):
            await self._js.purge_stream(CONVERSATION_STREAM, subject=subject)

    @rechecking_cancelled
    async def stored_parts(self, tenant: str) -> list[PartSize]:
        # Why not the client's `stream_info`: it returns the first 100,000 subjects alone.
        found: list[PartSize] = []
        while True:
            request = {
                "subjects_filter": subjects.conversation_part(tenant),
                "offset": len(found),
            }
            with unavailable(CONVERSATION_STREAM):
                answer = await self._client.request(
                    f"$JS.API.STREAM.INFO.{CONVERSATION_STREAM}",
                    json.dumps(request).encode(),
                    timeout=STORE_TIMEOUT_S,
                )
            page = json.loads(answer.data)
            if "error" in page:
                raise BusUnavailable(f"{CONVERSATION_STREAM}: {page['error'].get('description')}")
            listed = page["state"].get("subjects") or {}
            found += map(_part_size, listed)
            if not listed or len(found) >= page.get("total", 0):
                return sorted(found, key=lambda each: each.stored_ms)

    @rechecking_cancelled
    async def keep_newest(self, tenant: str, parts: int) -> None:
        # Why: 0 would mean no such bound.
        keep = {"keep": parts} if parts else {}
        subject = subjects.conversation_part(tenant)
        with unavailable(subject):
            await self._js.purge_stream(CONVERSATION_STREAM, subject=subject, **keep)


def _part_size(subject: str) -> PartSize:
    _, item_id, _, stamp = subject.rsplit(".", 3)
    stored_ms, _, size = stamp.partition("-")
    return PartSize(item_id, int(stored_ms), int(size))


class StoredResults(Connected):
    """Implements `headrace.bus.Results`."""

    @rechecking_cancelled
    async def put_result(self, request_id: str, record: bytes, *, kept_s: float = 0.0) -> None:
        await self._store(subjects.result(request_id), record, ttl_s=kept_s or RESULT_KEPT_S)

    @rechecking_cancelled
    async def get_result(self, request_id: str) -> bytes | None:
        with unavailable(f"result {request_id}"):
            try:
                return (
                    await self._js.get_last_msg(RESULT_STREAM, subjects.result(request_id))
                ).data
            except nats.js.errors.NotFoundError:
                return None
