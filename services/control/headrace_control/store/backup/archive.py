"""The file of a backup: a tar.gz of parts, with a manifest at its end that has their digests.

database/<table>.jsonl                           each row as JSON
broker/<stream>.json, broker/<stream>.snapshot   description and snapshot of a stream
manifest.json                                    of what, when, by which version
"""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from headrace.errors import InvalidRequest

FORMAT = 1
_MANIFEST = "manifest.json"
_CHUNK_BYTES = 128 * 1024
_UNREADABLE = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(KeyError, ValueError, TypeError),
)


@dataclass(frozen=True, slots=True)
class Part:
    items: int
    """Rows of a table, messages of a stream."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    created: str
    """RFC 3339, in UTC: when the database was read."""
    headrace: str
    """Version that made the backup."""
    schema: str
    audit_events: int
    audit_head: str
    """Hash of the last event."""
    valid_keys: int
    """Keys that were neither revoked nor expired."""
    parts: dict[str, Part] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def tables(self) -> tuple[str, ...]:
        return self._names("database/", ".jsonl")

    @property
    def streams(self) -> tuple[str, ...]:
        return self._names("broker/", ".snapshot")

    def _names(self, folder: str, suffix: str) -> tuple[str, ...]:
        """Return in the order of the archive."""
        found = (n for n in self.parts if n.startswith(folder) and n.endswith(suffix))
        return tuple(n.removeprefix(folder).removesuffix(suffix) for n in found)


class ArchiveWriter:
    """Writes a new archive beside its place, and puts it there when it is complete.

    A file that only its owner may read: it has addresses of people, and prompts of requests.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._draft = path, path.with_name(f".{path.name}.partial")
        self._parts: dict[str, Part] = {}

    def __enter__(self) -> ArchiveWriter:
        """Raises FileExistsError if there is a file in its place."""
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists; a backup overwrites nothing")
        self._draft.unlink(missing_ok=True)
        opened = os.open(self._draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._file = os.fdopen(opened, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)

    @contextmanager
    def part(self, name: str) -> Iterator[PartWriter]:
        """Add what is written within the `with`."""
        with tempfile.TemporaryFile(dir=self._path.parent) as spool:
            writer = PartWriter(cast("IO[bytes]", spool))
            yield writer
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = spool.tell(), 0o600
            spool.seek(0)
            self._tar.addfile(entry, spool)
        self._parts[name] = Part(writer.items, writer.digest.hexdigest())

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the manifest, with the parts, and put the archive in its place, if that is free.

        Raises:
            FileExistsError: there is a file.
        """
        complete = replace(manifest, parts=dict(self._parts))
        with self.part(_MANIFEST) as part:
            part.write(json.dumps(asdict(complete), indent=1).encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        os.link(self._draft, self._path)  # Why no rename: a link overwrites nothing.
        return complete


class PartWriter:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.items = file, sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)


@contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """Open a complete archive; nothing is unpacked.

    Raises:
        InvalidRequest: it is no backup, incomplete, damaged, or of a later version.
    """
    with ExitStack() as opened:
        try:
            reader = ArchiveReader(opened.enter_context(tarfile.open(path, "r:gz")))
            damaged = reader.damaged_part()
        except _UNREADABLE as error:
            raise InvalidRequest(f"{path} is no complete backup of Headrace: {error}") from error
        if damaged:
            raise InvalidRequest(f"{path} is damaged: {damaged} is not what was written")
        yield reader


class ArchiveReader:
    """What `open_archive` gives out."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.manifest = _manifest(b"".join(self._chunks(_MANIFEST)))

    def damaged_part(self) -> str:
        """Return the name of a part that has another digest than was written; empty: none has."""
        for name, part in self.manifest.parts.items():
            digest = sha256()
            for chunk in self._chunks(name):
                digest.update(chunk)
            if digest.hexdigest() != part.sha256:
                return name
        return ""

    def rows(self, table: str) -> Iterator[str]:
        """Yield the lines of a table."""
        opened = self._tar.extractfile(f"database/{table}.jsonl")
        assert opened is not None
        for line in opened:
            yield line.decode()

    def description(self, stream: str) -> bytes:
        return b"".join(self._chunks(f"broker/{stream}.json"))

    def snapshot(self, stream: str) -> Iterator[bytes]:
        yield from self._chunks(f"broker/{stream}.snapshot")

    def _chunks(self, name: str) -> Iterator[bytes]:
        opened = self._tar.extractfile(name)
        if opened is None:
            raise ValueError(f"{name} is no file")
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk


def _manifest(text: bytes) -> Manifest:
    fields = json.loads(text)
    if fields["format"] != FORMAT:
        raise ValueError(f"it has format {fields['format']}, this version reads {FORMAT}")
    parts = {name: Part(**part) for name, part in fields.pop("parts").items()}
    return Manifest(**fields, parts=parts)
