"""Answers come to the database whatever the mesh does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.clock import SystemClock
from headrace.errors import (
    GatewayUnreachable,
    HeadraceError,
    InternalError,
    LaneFull,
    ModelNotFound,
    RequestExists,
    RequestNotFound,
)
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.v1.common_pb2 import Choice, FinishReason
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED, REQUEST_STATE_RUNNING, Request
from headrace_web.base.ids import new_id, request_id_of
from headrace_web.base.records import Answer, Conversation, Owner, Turn, TurnState
from headrace_web.chat.answering import Answering
from headrace_web.mesh.requests import MeshRequests
from headrace_web.store import Store
from headrace_web.store.turns import TurnLimits
from helpers.eventually import eventually

ANN = Owner("acme", "people/ann")


class Mesh:
    """Raises what a test has put before it, and ends requests when it is allowed to."""

    def __init__(self) -> None:
        self.refusals: list[HeadraceError] = []
        self.failures: list[HeadraceError] = []
        self.begun: list[GenerateRequest] = []
        self.cancelled: list[str] = []
        self.may_end = asyncio.Event()
        self.knows = True

    async def begin(self, request: GenerateRequest, caller: RowCaller) -> Request:
        if self.refusals:
            raise self.refusals.pop(0)
        self.begun.append(request)
        return Request(request_id=request.request_id)

    async def wait(self, request_id: str, caller: RowCaller) -> Request:
        if self.failures:
            raise self.failures.pop(0)
        if not self.may_end.is_set():
            await asyncio.sleep(0.01)
            return Request(request_id=request_id, state=REQUEST_STATE_RUNNING)
        found = Request(request_id=request_id, state=REQUEST_STATE_ENDED)
        finish = FinishReason.FINISH_REASON_STOP
        found.outcome.choices.append(Choice(text="Hi!", finish_reason=finish))
        return found

    async def cancel(self, request_id: str, caller: RowCaller) -> Request:
        if not self.knows:
            raise RequestNotFound("not found")
        self.cancelled.append(request_id)
        found = Request(request_id=request_id, state=REQUEST_STATE_ENDED)
        found.outcome.choices.append(Choice(text="H"))
        return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path}/web.db", upgrade=True)
    yield opened
    await opened.close()


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@asynccontextmanager
async def answering(store: Store, mesh: Mesh, patience_s: float = 60) -> AsyncIterator[Answering]:
    made = Answering(store, cast("MeshRequests", mesh), SystemClock(), patience_s=patience_s)
    async with made.running():
        yield made


async def ask(store: Store, text: str = "hello") -> Turn:
    conversation = await store.conversations.create(
        Conversation(new_id(), ANN, system="be kind"), at_most=9
    )
    question = Turn(new_id(), conversation.conversation_id, "", "user", text)
    answer_id = new_id()
    caller: dict[str, Any] = {"tenant": "acme", "scopes": ["generate"]}
    answer = Answer(request_id_of(answer_id), "valley", {}, "7", caller)
    turn = Turn(
        answer_id,
        conversation.conversation_id,
        question.turn_id,
        "assistant",
        state=TurnState.PENDING,
        answer=answer,
    )
    return (await store.turns.add(ANN, [question, turn], TurnLimits()))[1]


async def until(store: Store, turn: Turn, state: TurnState) -> Turn:
    async with asyncio.timeout(20):
        while await store.turns.state(turn.turn_id) is not state:
            await asyncio.sleep(0.02)
    return await store.turns.get(ANN, turn.turn_id)


async def test_a_question_is_asked_with_all_before_it_and_its_answer_is_stored(
    store: Store, mesh: Mesh
) -> None:
    mesh.may_end.set()
    turn = await ask(store)
    async with answering(store, mesh) as followed:
        followed.follow(turn)
        found = await until(store, turn, TurnState.COMPLETE)
    assert found.content == "Hi!"
    (request,) = mesh.begun
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "be kind"),
        ("user", "hello"),
    ]
    assert (request.seed, request.detached) == (7, True)


async def test_what_another_process_has_left_is_taken_up(store: Store, mesh: Mesh) -> None:
    mesh.may_end.set()
    turn = await ask(store)
    await store.turns.started(turn.turn_id)
    async with answering(store, mesh):
        await until(store, turn, TurnState.COMPLETE)
    assert mesh.begun == []


@pytest.mark.parametrize(
    "error", [LaneFull("full"), GatewayUnreachable("gone"), RequestExists("it exists")]
)
async def test_a_passing_refusal_costs_nothing(
    store: Store, mesh: Mesh, error: HeadraceError
) -> None:
    mesh.refusals, mesh.failures = [error], [GatewayUnreachable("gone"), InternalError("broken")]
    mesh.may_end.set()
    turn = await ask(store)
    async with answering(store, mesh):
        assert (await until(store, turn, TurnState.COMPLETE)).content == "Hi!"


async def test_a_refusal_for_good_is_shown(store: Store, mesh: Mesh) -> None:
    mesh.refusals = [ModelNotFound("The model `x` does not exist")]
    turn = await ask(store)
    async with answering(store, mesh):
        found = await until(store, turn, TurnState.FAILED)
    assert found.answer is not None
    assert found.answer.error["reason"] == "MODEL_NOT_FOUND"


async def test_patience_ends(store: Store, mesh: Mesh) -> None:
    mesh.refusals = [LaneFull("full")] * 50
    turn = await ask(store)
    async with answering(store, mesh, patience_s=0):
        found = await until(store, turn, TurnState.FAILED)
    assert found.answer is not None
    assert found.answer.error == {"reason": "LANE_FULL", "message": "full"}


async def test_what_is_stopped_before_the_mesh_has_it_is_never_begun(
    store: Store, mesh: Mesh
) -> None:
    mesh.refusals, mesh.knows = [LaneFull("full")] * 3, False
    turn = await ask(store)
    async with answering(store, mesh) as followed:
        while mesh.refusals[2:]:
            await asyncio.sleep(0.01)
        await followed.cancel(turn)
        await until(store, turn, TurnState.CANCELLED)
        await eventually(lambda: not followed.followed)
    assert mesh.begun == []


async def test_what_is_stopped_keeps_its_text(store: Store, mesh: Mesh) -> None:
    turn = await ask(store)
    async with answering(store, mesh) as followed:
        running = await until(store, turn, TurnState.RUNNING)
        await followed.cancel(running)
        found = await store.turns.get(ANN, turn.turn_id)
    assert found.content == "H"
    assert mesh.cancelled == [f"chat_{turn.turn_id}"]
