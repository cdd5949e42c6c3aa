"""A browser, and a mesh with the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from headrace_web.http.assets import STATIC
from helpers.environment import lacks
from helpers.running_mesh import RunningMesh, start, stop

expect.set_options(timeout=40_000)

SCRIPTED = ("--engine", "scripted", "--scripted-step-ms", "20", "--gateways", "2")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        lacks("chromium", "there is no chromium on PATH")
    if not (STATIC / "index.html").exists():
        lacks("node", "the page is not built: make web")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def mesh(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    running = start(tmp_path_factory.mktemp("mesh"), *SCRIPTED, "--web", within_s=240)
    yield running
    stop(running)


@dataclass
class Visitor:
    """A person at the page. What the browser complains of is a failure at the end."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        def hear(message: ConsoleMessage) -> None:
            # A resource that is not there yet is no complaint of the page's own.
            if message.type in ("error", "warning") and "Failed to load" not in message.text:
                self.complaints.append(message.text)

        self.page.on("console", hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def visitor(
    browser: Browser, mesh: RunningMesh, request: pytest.FixtureRequest
) -> Iterator[Visitor]:
    """Opens the mesh's address; `@pytest.mark.parametrize("visitor", [options], indirect=True)`
    gives options of the browser's context."""
    context = browser.new_context(**getattr(request, "param", {"locale": "en"}))
    context.set_default_timeout(40_000)
    made = Visitor(context.new_page())
    made.listen()
    made.page.goto(mesh.url)
    made.page.wait_for_selector("#message")
    yield made
    context.close()
    assert made.complaints == []
