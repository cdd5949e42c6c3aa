"""Conversations and turns: each owner's own, written once, ended once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_web.base.ids import new_id, request_id_of
from headrace_web.base.records import Answer, Conversation, Owner, Turn, TurnState
from headrace_web.store import Store
from headrace_web.store.conversations import ConversationFilter
from headrace_web.store.turns import TurnLimits
from helpers.control_store import TestClock

ANN, BOB = Owner("acme", "people/ann"), Owner("acme", "people/bob")
ELSEWHERE = Owner("other", "people/ann")


async def make(store: Store, owner: Owner = ANN, title: str = "") -> Conversation:
    return await store.conversations.create(Conversation(new_id(), owner, title), at_most=10)


def asked(conversation: Conversation, text: str, parent: str = "") -> tuple[Turn, Turn]:
    question = Turn(new_id(), conversation.conversation_id, parent, "user", text)
    answer_id = new_id()
    answer = Answer(request_id_of(answer_id), "valley", {"temperature": 0.5}, str(2**64 - 1))
    return question, Turn(
        answer_id,
        conversation.conversation_id,
        question.turn_id,
        "assistant",
        state=TurnState.PENDING,
        answer=answer,
    )


async def titles(store: Store, owner: Owner = ANN, **which: str) -> list[str]:
    found = await store.conversations.list(owner, ConversationFilter(**which))  # type: ignore[arg-type]
    return [each.title for each in found]


async def test_another_owners_conversation_is_as_good_as_absent(store: Store) -> None:
    mine = await make(store, title="mine")
    await store.turns.add(ANN, asked(mine, "hello"), TurnLimits(turns=9))
    (question, _) = await store.turns.of(ANN, mine.conversation_id)
    for other in (BOB, ELSEWHERE):
        assert await titles(store, other) == []
        for forbidden in (
            store.conversations.get(other, mine.conversation_id),
            store.conversations.change(other, mine.conversation_id, {"title": "x"}),
            store.conversations.delete(other, mine.conversation_id),
            store.conversations.restore(other, mine.conversation_id),
            store.conversations.create(replace(mine, owner=other), at_most=9),
            store.turns.of(other, mine.conversation_id),
            store.turns.get(other, question.turn_id),
            store.turns.add(other, asked(mine, "mine too"), TurnLimits(turns=9)),
        ):
            with pytest.raises(ResourceNotFound):
                await forbidden
    assert await titles(store) == ["mine"]
    assert len(await store.turns.of(ANN, mine.conversation_id)) == 2


async def test_what_is_sent_again_changes_nothing(store: Store) -> None:
    made = await make(store, title="one")
    again = replace(made, title="two")
    assert (await store.conversations.create(again, at_most=10)).title == "one"
    turns = asked(made, "hello")
    first = await store.turns.add(ANN, turns, TurnLimits(turns=2))
    assert await store.turns.add(ANN, turns, TurnLimits(turns=2)) == first
    assert await store.turns.of(ANN, made.conversation_id) == first


async def test_limits_are_named(store: Store) -> None:
    made = await make(store)
    with pytest.raises(InvalidRequest, match="2 is the limit"):
        await store.turns.add(ANN, [*asked(made, "one"), *asked(made, "two")], TurnLimits(turns=2))
    with pytest.raises(InvalidRequest, match="5 characters; 4 is the limit"):
        await store.turns.add(ANN, asked(made, "hello"), TurnLimits(characters=4))
    with pytest.raises(InvalidRequest, match="there are 1 conversations"):
        await store.conversations.create(Conversation(new_id(), ANN), at_most=1)
    with pytest.raises(ResourceNotFound, match="turn nowhere not found"):
        await store.turns.add(ANN, asked(made, "x", "nowhere"), TurnLimits(turns=9))
    assert await store.turns.of(ANN, made.conversation_id) == []


async def test_the_first_end_of_an_answer_stays(store: Store) -> None:
    made = await make(store)
    _, answer = await store.turns.add(ANN, asked(made, "hello"), TurnLimits(turns=9))
    await store.turns.started(answer.turn_id)
    assert [turn.state for turn in await store.turns.open_answers()] == [TurnState.RUNNING]
    assert answer.answer is not None
    done = replace(answer.answer, usage={"output_tokens": 2}, finish_reason="stop")
    whole = replace(answer, content="hi 你好", state=TurnState.COMPLETE, answer=done)
    assert await store.turns.end(whole)
    assert not await store.turns.end(replace(whole, content="other", state=TurnState.FAILED))
    await store.turns.started(answer.turn_id)
    found = await store.turns.get(ANN, answer.turn_id)
    assert (found.content, found.state) == ("hi 你好", TurnState.COMPLETE)
    assert found.answer is not None
    assert (found.answer.seed, found.answer.usage) == (str(2**64 - 1), {"output_tokens": 2})
    assert await store.turns.open_answers() == []


async def test_search_finds_titles_and_texts_of_any_script(store: Store, clock: TestClock) -> None:
    for title, text in (("Trip", "to the 50% hills"), ("数据", "清洗"), ("c_d", "x")):
        made = await make(store, title=title)
        clock.advance(1)
        await store.turns.add(ANN, asked(made, text), TurnLimits(turns=9))
    assert await titles(store) == ["c_d", "数据", "Trip"]
    for words, found in (
        *(("HILLS", ["Trip"]), ("trip", ["Trip"]), ("清洗", ["数据"]), ("据", ["数据"])),
        *(("50%", ["Trip"]), ("5%s", []), ("c_d", ["c_d"]), ("c-d", [])),
    ):
        assert await titles(store, words=words) == found


async def test_lists_go_on_where_they_ended_and_show_tags(store: Store, clock: TestClock) -> None:
    for title in "abc":
        made = await make(store, title=title)
        clock.advance(1)
    await store.conversations.change(ANN, made.conversation_id, {"tags": ['say "hi"', "工作"]})
    assert await titles(store, tag="工作") == ["c"]
    assert await titles(store, tag='say "hi"') == ["c"]
    assert await titles(store, tag="say") == []
    page = await store.conversations.list(ANN, ConversationFilter(size=2))
    last = page[-1].update_ms, page[-1].conversation_id
    rest = await store.conversations.list(ANN, ConversationFilter(before=last))
    assert [each.title for each in (*page, *rest)] == ["c", "b", "a"]


async def test_what_is_deleted_can_be_restored_until_it_is_gone(
    store: Store, clock: TestClock
) -> None:
    made = await make(store, title="mine")
    await store.turns.add(ANN, asked(made, "hello"), TurnLimits(turns=9))
    await store.conversations.delete(ANN, made.conversation_id)
    assert await titles(store) == []
    await store.conversations.restore(ANN, made.conversation_id)
    assert await titles(store) == ["mine"]
    await store.conversations.delete(ANN, made.conversation_id)
    now_ms = int(clock.unix_s() * 1000)
    assert await store.conversations.remove_deleted(now_ms) == 0
    assert await store.conversations.remove_deleted(now_ms + 1) == 1
    with pytest.raises(ResourceNotFound):
        await store.conversations.restore(ANN, made.conversation_id)
    assert await store.turns.open_answers() == []


async def test_an_owner_has_so_many_answers_under_way(store: Store) -> None:
    one, other = await make(store), await make(store)
    _, answer = await store.turns.add(ANN, asked(one, "hello"), TurnLimits(open_answers=1))
    with pytest.raises(InvalidRequest, match="1 answers are under way"):
        await store.turns.add(ANN, asked(other, "hello"), TurnLimits(open_answers=1))
    with pytest.raises(InvalidRequest, match="has not ended"):
        await store.turns.add(ANN, asked(one, "and?", answer.turn_id), TurnLimits())
    await store.turns.end(replace(answer, state=TurnState.CANCELLED))
    await store.turns.add(ANN, asked(other, "hello"), TurnLimits(open_answers=1))


async def test_a_turn_of_another_conversation_is_not_overwritten(store: Store) -> None:
    one, other = await make(store), await make(store, BOB)
    turns = asked(one, "hello")
    await store.turns.add(ANN, turns, TurnLimits())
    stolen = [replace(turn, conversation_id=other.conversation_id) for turn in turns]
    with pytest.raises(ResourceNotFound, match="in another conversation"):
        await store.turns.add(BOB, stolen, TurnLimits())


async def test_a_stopped_answer_is_not_started(store: Store) -> None:
    made = await make(store)
    _, answer = await store.turns.add(ANN, asked(made, "hello"), TurnLimits())
    assert await store.turns.state(answer.turn_id) is TurnState.PENDING
    await store.turns.end(replace(answer, state=TurnState.CANCELLED))
    assert not await store.turns.started(answer.turn_id)
    assert await store.turns.state(answer.turn_id) is TurnState.CANCELLED
    assert await store.turns.state("nowhere") is None
