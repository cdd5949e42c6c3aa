"""As much of the Hugging Face hub as its own client asks for to fetch a model, on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"
PIECE_BYTES = 64 * 1024


class LoopbackHub:
    """One model, at one commit, which has a branch `main` and a tag `v1`.

    Weights come from a server of another origin, to which the hub redirects.
    """

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository, self.folder = repository, folder
        self.may_go_on = threading.Event()
        """While it is not set, half of every file's bytes are held back."""
        self.asked: list[str] = []
        """Revisions."""
        self.token: str | None = None
        """Without which the model does not exist."""
        self.gated = False
        self.cut_after: int | None = None
        """Bytes of a file, after which its connection breaks, once."""
        self.ranges: list[str] = []
        self.sent: dict[str, int] = {}
        """Bytes of each file."""
        self.storage_headers: list[Mapping[str, str]] = []
        self.damaged = False
        self.server, self.storage = _server(self.answer), _server(self.store)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path = call.path.partition("?")[0]
        about, resolve = f"/api/models/{self.repository}", f"/{self.repository}/resolve/"
        given, expected = call.headers.get("Authorization"), f"Bearer {self.token}"
        is_stranger = self.token is not None and given != expected
        revision = _revision(path.removeprefix(about).removeprefix(resolve))
        if is_stranger and given is not None:
            _refuse(call, 401, None, "Invalid credentials in Authorization header")
        elif is_stranger or not path.startswith((about, resolve)):
            _refuse(call, 401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", "v1", COMMIT):
            _refuse(call, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path.startswith(f"{about}/tree/"):
            _send(call, json.dumps(self._tree()).encode(), {})
        elif path.startswith(about):
            self.asked.append(revision)
            _send(call, json.dumps(self._description()).encode(), {})
        elif self.gated:
            _refuse(call, 403, "GatedRepo", "Access to this model is restricted")
        elif path.endswith(".safetensors"):
            self._redirect(call, path.removeprefix(resolve).partition("/")[2])
        else:
            name = path.removeprefix(resolve).partition("/")[2]
            etag = sha256((self.folder / name).read_bytes()).hexdigest()
            self._send_content(call, name, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def store(self, call: BaseHTTPRequestHandler) -> None:
        """Answer for the storage of the hub."""
        self.storage_headers.append(dict(call.headers))
        self._send_content(call, call.path.removeprefix("/storage/"), {})

    def _redirect(self, call: BaseHTTPRequestHandler, name: str) -> None:
        content = (self.folder / name).read_bytes()
        etag = f'"{sha256(content).hexdigest()}"'
        call.send_response(302)
        call.send_header("Location", f"http://127.0.0.1:{self.storage.server_port}/storage/{name}")
        for header, value in {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": etag,
            "X-Linked-Size": str(len(content)),
            "Content-Length": "0",
        }.items():
            call.send_header(header, value)
        call.end_headers()

    def _send_content(
        self, call: BaseHTTPRequestHandler, name: str, headers: dict[str, str]
    ) -> None:
        content = (self.folder / name).read_bytes()
        if self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        whole, begin = len(content), 0
        if (span := call.headers.get("Range")) is not None:
            self.ranges.append(span)
            begin = int(span.removeprefix("bytes=").partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}

        def count(sent: int) -> bool:
            self.sent[name] = self.sent.get(name, 0) + sent
            if is_cut := self.cut_after is not None and self.sent[name] >= self.cut_after:
                self.cut_after = None
            return not is_cut

        status = 200 if span is None else 206
        _send(call, content[begin:], headers, status, hold=self.may_go_on, sent=count)

    def _description(self) -> dict[str, object]:
        files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
        return {"id": self.repository, "sha": COMMIT, "private": False, "siblings": files}

    def _tree(self) -> list[dict[str, object]]:
        return [self._entry(file) for file in sorted(self.folder.iterdir())]

    def _entry(self, file: Path) -> dict[str, object]:
        size = file.stat().st_size
        entry: dict[str, object] = {"type": "file", "path": file.name, "size": size, "oid": "0"}
        if file.suffix == ".safetensors":
            digest = sha256(file.read_bytes()).hexdigest()
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
        return entry


def _revision(rest: str) -> str:
    """Return the revision that a path names, from behind the name of the model."""
    found = re.match(r"/?(?:revision/|tree/)?([^/]+)", rest)
    return found.group(1) if found else "main"


def _refuse(call: BaseHTTPRequestHandler, status: int, code: str | None, message: str) -> None:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    _send(call, json.dumps({"error": message}).encode(), headers, status)


def _send(
    call: BaseHTTPRequestHandler,
    content: bytes,
    headers: dict[str, str],
    status: int = 200,
    *,
    hold: threading.Event | None = None,
    sent: Callable[[int], bool] = lambda sent: True,
) -> None:
    call.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        call.send_header(name, value)
    call.end_headers()
    if call.command == "HEAD":
        return
    for at in range(0, len(content), PIECE_BYTES):
        if hold is not None and 2 * at > len(content):
            hold.wait()
        piece = content[at : at + PIECE_BYTES]
        try:
            call.wfile.write(piece)
        except OSError:
            return  # the client is gone
        if not sent(len(piece)):
            call.close_connection = True
            return


def _server(answer: Callable[[BaseHTTPRequestHandler], None]) -> ThreadingHTTPServer:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Nothing reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    return server


@contextmanager
def serving(*servers: ThreadingHTTPServer) -> Iterator[None]:
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def loopback_hub(repository: str, folder: Path) -> Iterator[LoopbackHub]:
    hub = LoopbackHub(repository, folder)
    with serving(hub.server, hub.storage):
        try:
            yield hub
        finally:
            hub.may_go_on.set()
