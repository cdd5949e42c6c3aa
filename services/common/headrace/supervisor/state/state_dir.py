"""The state directory of one mesh: paths, lock, and the record of its processes."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import IO

from headrace.supervisor.state.disk import disk_problem
from headrace.supervisor.state.failures import DiskFull, MeshError, MeshNotRunning, MeshRunning
from headrace.supervisor.state.files import read_json_object, write_atomically
from headrace.supervisor.state.secrets import MeshSecrets

DEFAULT_STATE_DIR = Path(".headrace")
"""In the current directory: two clones have two meshes."""
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process, as its supervisor last saw it."""

    role: str
    name: str
    pid: int | None
    """None between a death and the next start."""
    ports: dict[str, int]
    restarts: int
    drained: bool = False
    """It was drained, and is not started again until that is undone."""
    fault: str = ""
    """Why it runs and does not do its work; empty: no fault is known."""
    last_end: str = ""
    """How its last run ended; empty if this is the first."""


@dataclass(frozen=True, slots=True)
class MeshRecord:
    """The mesh, as `mesh.json` has it."""

    supervisor_pid: int
    url: str | None
    """None until the port is known."""
    ready: bool
    """Whether a token of every model has come through since the start."""
    models: list[str]
    processes: list[ProcessRecord] = field(default_factory=list)
    stops_within_s: float = 100.0
    """Longest time from SIGTERM to its end."""


class StateDir:
    """A state directory; its path is made absolute."""

    def __init__(self, state_dir: Path | str) -> None:
        self.folder = Path(state_dir).expanduser().absolute()
        self.logs = self.folder / "logs"
        self.supervisor_log = self.log("supervisor")
        """The log of the supervisor of a mesh in the background."""
        self.ports = self.folder / "ports"
        self.edge = self.folder / "edge"
        self.broker = self.folder / "nats"
        self.control = self.folder / "control"
        self.web = self.folder / "web"
        self.tls = self.folder / "tls"
        self.secrets = MeshSecrets(self.folder / "secrets")
        self.admin_key, self.cli_key = self.folder / "admin.key", self.folder / "cli.key"
        """Keys that control makes once: of an administrator, and of commands that use models."""
        self._drained = self.folder / "out"
        self._lock_file = self.folder / "lock"
        self._record = self.folder / "mesh.json"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @property
    def mesh_id(self) -> str:
        """Identifies the meshes of this directory, so that each knows what earlier ones configured.

        It is made at the first use and stays when the directory is moved.
        """
        file = self.folder / "mesh_id"
        if not file.exists():
            write_atomically(file, f"mesh-{token_hex(8)}")
        return file.read_text("utf-8").strip()

    def require_space(self) -> None:
        """Check that a mesh can be started here.

        Raises:
            DiskFull: the directory cannot be written; the text says what is free and needed.
        """
        if not self.is_locked and (problem := disk_problem(self.folder)) is not None:
            raise DiskFull(f"the mesh cannot keep its state: {problem}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory for the length of the `with`; the kernel unlocks it if we die.

        Raises:
            MeshRunning: another supervisor has locked it.
            DiskFull: it cannot be written.
        """
        self.require_space()
        for folder in (self.folder, self.logs, self.ports):
            folder.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("a") as lock:
            if not _try_lock(lock):
                raise MeshRunning(
                    f"a mesh is running in {self.folder}; "
                    "end it with `headrace down`, or give this one another --state-dir"
                )
            self._record.unlink(missing_ok=True)
            for name in self._drained.glob("*"):
                name.unlink()
            try:
                yield
            finally:
                self._record.unlink(missing_ok=True)

    @property
    def is_locked(self) -> bool:
        """Whether a supervisor runs here. Unlike a pid file, the lock cannot be stale."""
        try:
            with self._lock_file.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def write_record(self, record: MeshRecord) -> None:
        write_atomically(self._record, json.dumps(asdict(record), indent=1))

    def read_record(self) -> MeshRecord:
        """Return what the running supervisor last wrote.

        Raises:
            MeshNotRunning: none runs here, or it has not written yet.
        """
        found = read_json_object(self._record) if self.is_locked else None
        if found is None:
            raise MeshNotRunning(
                f"no mesh is running in {self.folder}; start one with `headrace up`"
            )
        processes = [ProcessRecord(**process) for process in found.pop("processes")]
        return MeshRecord(processes=processes, **found)

    def read_process(self, name: str) -> ProcessRecord:
        """Return the current record of a process.

        Raises:
            MeshNotRunning: the mesh was stopped meanwhile.
            MeshError: it was started again, without this process.
        """
        for process in self.read_record().processes:
            if process.name == name:
                return process
        raise MeshError(f"the mesh in {self.folder} was started again, without {name}")

    def mark_drained(self, name: str) -> None:
        """Keep the supervisor from restarting a process until `clear_drained` or the next mesh."""
        self._drained.mkdir(exist_ok=True)
        (self._drained / name).touch()

    def clear_drained(self, name: str) -> None:
        (self._drained / name).unlink(missing_ok=True)

    def is_marked_drained(self, name: str) -> bool:
        return (self._drained / name).exists()

    def rotate_logs(self) -> None:
        """Keep the logs of the last mesh beside this one's, and none older."""
        for log in self.logs.glob("*.log"):
            if log != self.supervisor_log:
                log.replace(log.with_suffix(".log.1"))


def _try_lock(lock: IO[str]) -> bool:
    # Why more than once: `is_locked` of a `headrace status` holds the lock for a moment.
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False
