"""An authority of a mesh, and directories with the files of its processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace.credentials.tls_files import TlsPaths
from headrace.supervisor.servers.certificates import VALID, Pair, issue, make_authority


class MeshAuthority:
    """An authority that writes what it signs under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair: Pair = make_authority(datetime.now(UTC) - timedelta(days=365))

    def issue(
        self,
        role: str,
        name: str = "one",
        *,
        at: Path | None = None,
        trusted: bytes = b"",
        age: timedelta = timedelta(0),
    ) -> TlsPaths:
        """Write a certificate, its key and the authority; return where they are.

        Args:
            at: the directory; one by role and name if not given. Files there are replaced.
            trusted: further authorities.
            age: how long ago it was signed; more than 90 days: it has expired.
        """
        at = at or self.folder / role / name
        at.mkdir(parents=True, exist_ok=True)
        pair = issue(self.pair, role, name, now=datetime.now(UTC) - age, valid=VALID)
        paths = TlsPaths(at / "ca.crt", at / "tls.crt", at / "tls.key")
        for path, content in (
            (paths.ca, self.pair.certificate + trusted),
            (paths.cert, pair.certificate),
            (paths.key, pair.key),
        ):
            draft = path.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_bytes(content)
            draft.replace(path)
        return paths
