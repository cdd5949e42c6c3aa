"""The chat, used as a person uses it, in a real browser over a real mesh."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Request, Route, expect

from headrace.supervisor.state.state_dir import StateDir
from helpers.running_mesh import RunningMesh
from web.conftest import Visitor

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
    "locale": "en",
}
CHINESE = {"locale": "zh-CN"}

pytestmark = pytest.mark.timeout(300)


def ask(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.press("#message", "Enter")
    expect(page.locator("article.user").last).to_contain_text(text)


def answered(page: Page) -> str:
    """Wait for the end of the last answer, and return its text."""
    answer = page.locator("article.assistant").last
    expect(answer.locator(".facts")).to_be_visible()
    return answer.locator(".markdown").inner_text()


def stored(mesh: RunningMesh, page: Page) -> list[dict[str, Any]]:
    """Return the turns of the open conversation as the server has them."""
    conversation = page.url.rpartition("/")[2]
    found = httpx.get(f"{mesh.url}/ui/api/conversations/{conversation}", trust_env=False)
    turns: list[dict[str, Any]] = found.json()["turns"]
    return turns


def words(text: str) -> list[str]:
    return text.split()


def test_a_question_is_answered_and_kept(visitor: Visitor, mesh: RunningMesh) -> None:
    page = visitor.page
    ask(page, "Tell me of the river")
    text = answered(page)
    page.reload()
    assert answered(page) == text
    assert words(stored(mesh, page)[-1]["content"]) == words(text)
    expect(page.get_by_role("link", name="Tell me of the river")).to_be_visible()


def test_other_answers_and_edits_overwrite_nothing(visitor: Visitor) -> None:
    page = visitor.page
    ask(page, "first words")
    first = answered(page)
    page.get_by_label("Generate again").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    answered(page)
    page.get_by_label("Previous version").click()
    assert answered(page) == first
    page.get_by_label("Edit").click()
    box = page.locator("article.user textarea")
    box.fill("other words")
    page.locator("article.user").get_by_role("button", name="Send").click()
    expect(page.locator("article.user")).to_contain_text("other words")
    answered(page)
    page.reload()
    expect(page.locator("article.user")).to_contain_text("other words")
    page.locator("article.user").get_by_label("Previous version").click()
    expect(page.locator("article.user")).to_contain_text("first words")


def test_an_answer_survives_reload_and_the_death_of_its_gateways(
    visitor: Visitor, mesh: RunningMesh
) -> None:
    page = visitor.page
    page.route(re.compile("/turns$"), _without_end)
    ask(page, "a long tale")
    expect(page.locator("article.assistant .markdown")).to_have_text(re.compile(r"(\S+\s+){20}"))
    page.reload()
    expect(page.locator("article.assistant .markdown")).to_have_text(re.compile(r"(\S+\s+){20}"))
    for process in StateDir(mesh.folder).read_record().processes:
        if process.name.startswith("gateway-") and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
    text = answered(page)
    (answer,) = stored(mesh, page)[1:]
    assert words(answer["content"]) == words(text)
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["output_tokens"] == 300


def test_an_answer_is_stopped_and_keeps_its_text(visitor: Visitor, mesh: RunningMesh) -> None:
    page = visitor.page
    page.route(re.compile("/turns$"), _without_end)
    ask(page, "a long tale")
    expect(page.locator("article.assistant .markdown")).to_have_text(re.compile(r"(\S+\s+){5}"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped")).to_be_visible()
    text = answered(page)
    assert words(stored(mesh, page)[-1]["content"]) == words(text) != []


def test_conversations_are_found_renamed_deleted_and_restored(visitor: Visitor) -> None:
    page = visitor.page
    ask(page, "the lighthouse keeper")
    answered(page)
    changes: list[Any] = []

    def hear(sent: Request) -> None:
        if sent.method == "PATCH":
            changes.append(sent.post_data_json)

    page.on("request", hear)
    box = page.get_by_label("Rename", exact=True)
    for name, key in (("by mistake", "Escape"), ("灯塔", "Enter")):
        page.get_by_role("link", name="the lighthouse keeper").hover()
        page.get_by_label("Rename: the lighthouse keeper").click()
        box.fill(name)
        box.press(key)
        expect(box).to_have_count(0)
    expect(page.get_by_role("link", name="灯塔")).to_be_visible()
    assert changes == [{"title": "灯塔"}]
    page.get_by_label("Search").fill("LIGHTHOUSE keeper")
    expect(page.locator("aside li")).to_have_count(1)
    page.get_by_role("link", name="灯塔").hover()
    page.get_by_label("Delete: 灯塔").click()
    expect(page.locator("aside li")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("link", name="灯塔")).to_be_visible()


def test_a_message_is_sent_though_the_models_come_late(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate("localStorage.clear()")
    page.route(re.compile("/v2/models$"), _late)
    page.reload()
    ask(page, "quick")
    answered(page)


def test_a_message_that_was_not_sent_is_kept(visitor: Visitor, mesh: RunningMesh) -> None:
    page = visitor.page
    page.fill("#message", "half a thought")
    page.reload()
    expect(page.locator("#message")).to_have_value("half a thought")
    page.fill("#message", "")
    page.goto(f"{mesh.url}/ui/?prompt=Sum%20it%20up")
    expect(page.locator("#message")).to_have_value("Sum it up")
    expect(page.locator("article")).to_have_count(0)


def test_a_question_whose_reply_is_lost_is_asked_once(visitor: Visitor, mesh: RunningMesh) -> None:
    page = visitor.page
    page.route(re.compile("/turns$"), _reply_lost, times=1)
    page.fill("#message", "only once")
    page.press("#message", "Enter")
    expect(page.locator("main [role=alert]")).to_contain_text("lost on the way")
    expect(page.locator("#message")).to_have_value("only once")
    page.reload()
    expect(page.locator("#message")).to_have_value("only once")
    expect(page.locator("article.user")).to_be_visible()
    answered(page)
    page.press("#message", "Enter")
    expect(page.locator("#message")).to_have_value("")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert [turn["role"] for turn in stored(mesh, page)] == ["user", "assistant"]


def test_a_conversation_that_loads_late_is_not_shown_in_another(visitor: Visitor) -> None:
    page = visitor.page
    ask(page, "the slow one")
    answered(page)
    slow = page.url.rpartition("/")[2]
    page.get_by_role("link", name="New chat").click()
    ask(page, "the quick one")
    answered(page)
    page.get_by_role("link", name="New chat").click()
    held: list[Route] = []
    page.route(re.compile(f"/conversations/{slow}$"), lambda route: held.append(route))
    page.get_by_role("link", name="the slow one").click()
    page.get_by_role("link", name="the quick one").click()
    expect(page.locator("article.user")).to_contain_text("the quick one")
    with page.expect_response(re.compile(f"/conversations/{slow}$")):
        held[0].continue_()
    page.evaluate("fetch('/ui/healthz').then(() => new Promise(requestAnimationFrame))")
    assert page.locator("article.user").all_inner_texts() == ["the quick one"]
    expect(page.locator("aside li.current")).to_contain_text("the quick one")


def test_a_session_that_ends_in_an_answer_costs_nothing(
    visitor: Visitor, mesh: RunningMesh
) -> None:
    page = visitor.page
    refused: list[str] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=401, json={"error": {"code": "UNAUTHENTICATED", "message": "who?"}})

    reads = re.compile(":stream|/ui/api/turns/")
    page.route(re.compile("/turns$"), _without_end)
    page.route(reads, refuse)
    page.fill("#message", "a long tale")
    page.press("#message", "Enter")
    expect(page.get_by_label("API key")).to_be_visible()
    # A page that went on would call at once, and twice a second.
    page.wait_for_timeout(1200)
    assert len(refused) == 2
    page.unroute(reads)
    page.route(re.compile("/v2/admin/sessions$"), lambda route: route.fulfill(json={}))
    page.get_by_label("API key").fill("hr_key")
    page.get_by_label("API key").press("Enter")
    text = answered(page)
    assert words(stored(mesh, page)[-1]["content"]) == words(text) != []


def test_enter_of_an_input_method_does_not_send(visitor: Visitor) -> None:
    page = visitor.page
    page.fill("#message", "ni hao")
    page.evaluate(
        """document.querySelector('#message').dispatchEvent(
            new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"""
    )
    page.wait_for_load_state("networkidle")
    expect(page.locator("article")).to_have_count(0)


def test_what_a_model_writes_runs_nowhere(visitor: Visitor) -> None:
    page = visitor.page
    page.route(re.compile(":stream"), lambda route: route.fulfill(status=404))
    page.route(re.compile("/ui/api/turns/"), _evil)
    ask(page, "be evil")
    answer = page.locator("article.assistant .markdown")
    expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
    expect(answer.locator("img, script, iframe")).to_have_count(0)
    links = answer.locator("a[href]").evaluate_all("all => all.map((a) => a.href)")
    assert links == ["https://example.com/", "https://example.com/i.png"]
    expect(answer.locator(".katex").first).to_be_visible()
    expect(answer.locator("pre code .hljs-keyword").first).to_be_visible()
    expect(answer.locator("td").first).to_have_text("1")


@pytest.mark.parametrize("visitor", [PHONE, CHINESE], indirect=True, ids=["phone", "chinese"])
def test_it_is_usable_by_everybody(visitor: Visitor) -> None:
    page = visitor.page
    ask(page, "你好 hello")
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    for open_ in ("", "menu"):
        if open_ and page.locator("header .menu").is_visible():
            page.locator("header .menu").click()
            expect(page.locator("aside input[type=search]")).to_be_in_viewport()
        found = Axe().run(page)
        violations = [
            (each["id"], [node["html"] for node in each["nodes"]])
            for each in found.response["violations"]
        ]
        assert violations == []


def test_the_address_leads_browsers_alone_to_the_page(mesh: RunningMesh) -> None:
    with httpx.Client(base_url=mesh.url, trust_env=False) as http:
        browser = http.get("/", headers={"accept": "text/html,application/xhtml+xml"})
        assert (browser.status_code, browser.headers["location"]) == (302, f"{mesh.url}/ui/")
        assert http.get("/").json()["error"]["code"] == "unknown_path"
        foreign = http.get("/ui/api/conversations", headers={"host": "evil.example"})
        assert foreign.status_code == 403
        unknown = http.get("/ui/api/nothing")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "RESOURCE_NOT_FOUND")


def _without_end(route: Route) -> None:
    """Have the scripted engine write 300 tokens."""
    body = dict(route.request.post_data_json or {})
    body["parameters"] = {"max_tokens": 300, "ignore_eos": True}
    route.continue_(post_data=body)


def _reply_lost(route: Route) -> None:
    route.fetch()
    route.fulfill(status=400, json={"error": {"code": "X", "message": "lost on the way"}})


def _late(route: Route) -> None:
    """Answer after a second."""
    route.request.frame.page.wait_for_timeout(1000)
    route.continue_()


def _evil(route: Route) -> None:
    """Answer with a turn whose text tries what it can."""
    turn = route.fetch().json()
    turn["state"] = "complete"
    turn["content"] = (
        "<img src=x onerror=alert(1)>\n\n<script>alert(2)</script>\n\n"
        "[no](javascript:alert(3)) [yes](https://example.com/) ![x](https://example.com/i.png)\n\n"
        "```python\nimport os\n```\n\n$$x^2$$\n\n|a|\n|-|\n|1|\n"
    )
    route.fulfill(json=turn)
