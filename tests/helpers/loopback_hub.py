"""As much of the Hugging Face hub as its own client asks for to fetch a model, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"
_PIECE_BYTES = 64 * 1024


class LoopbackHub:
    """One model, at one commit, which has a branch `main` and a tag `v1`."""

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository, self.folder = repository, folder
        self.may_go_on = threading.Event()
        """While it is not set, half of every file's bytes are held back."""
        self.asked: list[str] = []
        """Revisions."""
        hub = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path = call.path.partition("?")[0]
        about, resolve = f"/api/models/{self.repository}", f"/{self.repository}/resolve/"
        if path.startswith(f"{about}/tree/"):
            _send(call, json.dumps(self._tree()).encode(), {})
        elif path.startswith(about):
            self.asked.append(path.removeprefix(about).removeprefix("/revision/") or "main")
            _send(call, json.dumps(self._description()).encode(), {})
        elif path.startswith(resolve):
            content = (self.folder / path.removeprefix(resolve).partition("/")[2]).read_bytes()
            facts = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            _send(call, content, facts, hold=self.may_go_on)
        else:
            call.send_error(404)

    def _description(self) -> dict[str, object]:
        files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
        return {"id": self.repository, "sha": COMMIT, "private": False, "siblings": files}

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
            for file in sorted(self.folder.iterdir())
        ]


def _send(
    call: BaseHTTPRequestHandler,
    content: bytes,
    headers: dict[str, str],
    hold: threading.Event | None = None,
) -> None:
    call.send_response(200)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        call.send_header(name, value)
    call.end_headers()
    if call.command == "HEAD":
        return
    for at in range(0, len(content), _PIECE_BYTES):
        if hold is not None and 2 * at > len(content):
            hold.wait()
        call.wfile.write(content[at : at + _PIECE_BYTES])


@contextmanager
def loopback_hub(repository: str, folder: Path) -> Iterator[LoopbackHub]:
    hub = LoopbackHub(repository, folder)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.may_go_on.set()
        hub.server.shutdown()
        thread.join()
        hub.server.server_close()
