"""`headrace.load`: what its users call, over the scripted engine and tiny encoders."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InvalidRequest,
    RequestCancelled,
    Unsupported,
)
from headrace.settings import InvalidSettings
from headrace_local import LocalModel, ModelLoadFailed
from helpers.tiny_encoders import save_encoder, save_modules, tiny_encoder

LONG: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True, "seed": 3}
ENDLESS: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True}


def scripted(**settings: Any) -> LocalModel:
    return headrace.load("scripted", engine="scripted", **settings)


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with scripted() as loaded:
        yield loaded


def test_an_answer_has_text_tokens_reason_usage_and_seed(model: LocalModel) -> None:
    answer = model.generate("Hello", **LONG, logprobs=2)
    (choice,) = answer.choices
    assert answer.text == choice.text != ""
    assert len(choice.token_ids) == answer.usage.output_tokens == LONG["max_tokens"]
    assert choice.logprobs is not None
    assert len(choice.logprobs.logprobs) == len(choice.token_ids)
    assert (answer.finish_reason, answer.seed, answer.model) == ("length", 3, "scripted")
    assert answer.usage.prompt_tokens > 0


def test_a_stream_keeps_its_model_open() -> None:
    stream = scripted().generate_stream("Hello", **LONG)
    gc.collect()
    list(stream)
    assert stream.answer.usage.output_tokens == LONG["max_tokens"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_may_be_collected_on_the_models_own_thread(*, begun: bool) -> None:
    model = scripted()
    runtime, held = model._runtime, [model.generate_stream("Hello", **ENDLESS)]
    if begun:
        next(iter(held[0]))
    del model

    async def collect() -> None:
        held.clear()  # the stream's last reference, and the model's

    future = runtime._thread.spawn(collect())
    future.result(timeout=20)
    runtime._thread._thread.join(timeout=20)
    assert not runtime._thread._thread.is_alive()


def test_a_list_of_prompts_is_answered_in_its_order_as_each_alone(model: LocalModel) -> None:
    prompts = [f"Number {i}" for i in range(20)]
    together = model.generate(prompts, **LONG)
    assert [a.text for a in together] == [model.generate(each, **LONG).text for each in prompts]
    assert model.generate(prompts[:0]) == []


def test_token_ids_are_a_prompt_too(model: LocalModel) -> None:
    one, other = model.generate([[5, 6, 7], [8]], **LONG)
    assert model.generate([5, 6, 7], **LONG).text == one.text != other.text
    assert (one.usage.prompt_tokens, other.usage.prompt_tokens) == (3, 1)


@pytest.mark.parametrize("prompt", ["Hello", [5, 6, 7]], ids=["text", "ids"])
def test_a_stream_comes_to_the_same_answer(model: LocalModel, prompt: Any) -> None:
    stream = model.generate_stream(prompt, **LONG)
    pieces = list(stream)
    whole = model.generate(prompt, **LONG)
    assert "".join(piece.text for piece in pieces) == whole.text == stream.answer.text
    assert stream.answer.choices == whole.choices
    assert stream.answer.usage == whole.usage


def test_a_conversation_is_answered_whole_and_in_pieces(model: LocalModel) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    whole = model.chat(messages, **LONG)
    with model.chat_stream(messages, **LONG) as stream:
        assert "".join(piece.text for piece in stream) == whole.text
    assert model.chat("Hi", **LONG).text == model.chat([("user", "Hi")], **LONG).text


def test_several_choices_and_a_stop_string(model: LocalModel) -> None:
    both = model.generate("Hello", **LONG, n=2, temperature=1.0)
    assert len({choice.text for choice in both.choices}) == 2
    word = both.text.split()[2]
    cut = model.generate("Hello", **LONG, temperature=1.0, stop=[word])
    assert both.text.startswith(cut.text)
    assert (word in cut.text, cut.finish_reason) == (False, "stop")


def test_threads_share_a_model(model: LocalModel) -> None:
    prompts = [f"Thread {i}" for i in range(16)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda prompt: model.generate(prompt, **LONG).text, prompts))
    assert found == [answer.text for answer in model.generate(prompts, **LONG)]


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        ({"top_p": 3.0}, InvalidRequest, "parameters.top_p"),
        ({"max_tokens": 5000}, ContextLengthExceeded, "parameters.max_tokens"),
        ({"max_token": 5}, InvalidRequest, "max_token"),
        ({"priority": "bulk"}, Unsupported, "priority"),
        ({"patience_s": 1.0}, Unsupported, "patience"),
        ({"json_object": True}, Unsupported, "parameters.structure"),
    ],
)
def test_what_is_refused_names_its_field(
    model: LocalModel, options: dict[str, Any], kind: type[HeadraceError], field: str
) -> None:
    with pytest.raises(kind) as refused:
        model.generate("Hello", **options)
    assert refused.value.field == field
    with pytest.raises(kind):
        list(model.generate_stream("Hello", **options))


def test_one_invalid_prompt_of_a_list_fails_the_call_and_frees_the_others() -> None:
    with scripted(max_slots=1, scripted_step_s=0.001) as model:
        with pytest.raises(InvalidRequest):
            model.generate([[5], [10**6]], **ENDLESS)
        assert model.generate("Hello", max_tokens=1).text


def test_a_request_ends_at_its_timeout() -> None:
    with scripted(scripted_step_s=0.001) as model:
        with pytest.raises(DeadlineExceeded, match=r"of which it had 0\.05 s"):
            model.generate("Hello", **ENDLESS, timeout_s=0.05)
        assert model.generate("Hello", max_tokens=1, timeout_s=50).text


def test_a_stream_that_is_left_is_cancelled() -> None:
    with scripted(max_slots=1, scripted_step_s=0.001) as model:
        with model.generate_stream("Hello", **ENDLESS) as stream:
            next(stream)
        for _ in model.generate_stream("Hello", **ENDLESS):
            break
        assert model.generate("Hello", max_tokens=1).text


def test_a_closed_model_ends_its_threads_and_answers_nothing() -> None:
    # Those of models of other tests may still be ending.
    before = set(threading.enumerate())
    model = scripted(scripted_step_s=0.001)
    stream = model.generate_stream("Hello", **ENDLESS)
    next(stream)
    made = set(threading.enumerate()) - before
    assert {thread.name for thread in made} >= {"engine", "headrace.load"}
    model.close()
    model.close()
    assert not any(thread.is_alive() for thread in made if thread.name != "headrace.close")
    calls: list[Callable[[], object]] = [
        lambda: model.generate("Hello"),
        lambda: model.generate(["Hello"]),
        lambda: model.chat("Hello"),
        lambda: list(model.generate_stream("Hello")),
    ]
    for call in calls:
        with pytest.raises(FailedPrecondition, match="model scripted was closed: load it again"):
            call()
    with pytest.raises(FailedPrecondition):
        list(stream)


def test_closing_from_another_thread_ends_a_call() -> None:
    model = scripted(scripted_step_s=0.001)
    with model.generate_stream("Hello", **ENDLESS) as stream:
        next(stream)
        closing = threading.Thread(target=model.close)
        closing.start()
        with pytest.raises((RequestCancelled, FailedPrecondition), match="was closed"):
            list(stream)
        closing.join()


def test_a_model_that_nothing_refers_to_is_closed() -> None:
    model = scripted()
    close = model._close  # what is called at its end
    del model
    assert not close.alive


def test_models_that_cannot_be_loaded_are_refused_as_by_a_worker(tmp_path: Path) -> None:
    before = threading.enumerate()
    with pytest.raises(ModelLoadFailed, match="there is no such folder: /no/such; and it is no id"):
        headrace.load("/no/such")
    with pytest.raises(ModelLoadFailed, match=r"its folder has no config\.json"):
        headrace.load(str(tmp_path))
    with pytest.raises(ModelLoadFailed, match="torch finds no GPU"):
        headrace.load(device="cuda")
    for thread in set(threading.enumerate()) - set(before):
        thread.join(10)  # those that loaded end by themselves
    assert threading.enumerate() == before


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"dtype": "float8"}, "dtype: Input should be 'float32', 'bfloat16' or 'float16'"),
        ({"max_slots": 0}, "max_slots: Input should be greater than or equal to 1"),
        ({"max_slot": 4}, "max_slot: no such setting of a worker"),
    ],
)
def test_arguments_that_are_wrong_are_named(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidSettings, match=fault):
        headrace.load(**settings)


def test_the_environment_of_a_mesh_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKER_CONTEXT_TOKENS", "99")
    monkeypatch.setenv("HEADRACE_WORKER_CONFIG", "/no/such/file")
    monkeypatch.setenv("HEADRACE_GATEWAY_MAX_PROMPT_CHARACTERS_PER_TOKEN", "1")
    with scripted() as model:
        assert model.context_tokens == 4096
        assert model.generate("Hello " * 500, max_tokens=1).text


def test_a_model_that_embeds_makes_vectors_and_ranks(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "toy", tiny_encoder())
    save_modules(folder, pooling={"pooling_mode": "mean"}, normalise=True)
    with headrace.load(str(folder)) as model:
        one, same, other = model.embed(["the river", "the river", "a stone"]).vectors
        assert one == same != other
        ranking = model.rerank("the river", ["a stone", "the river"], top_n=1)
        assert [(each.index, each.document) for each in ranking.documents] == [(1, "the river")]
        assert ranking.documents[0].relevance == pytest.approx(1)
        with pytest.raises(Unsupported, match="makes vectors of texts"):
            model.generate("the river")


PROGRAM = """
import sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in {EVENTS} else None)
import headrace
model = headrace.load("scripted", engine="scripted")
print(model.generate("Hello", max_tokens=3).usage.output_tokens, opened, "nats" in sys.modules)
""".replace("EVENTS", "'socket.bind', 'socket.connect', 'subprocess.Popen', 'socket.listen'")


def test_nothing_listens_nothing_connects_and_the_process_ends_by_itself() -> None:
    command = (sys.executable, "-c", PROGRAM)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("3 [] False\n", "", 0)
