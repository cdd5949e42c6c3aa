"""The clients there are, and an environment of its own for each, made from its lock file.

tests/clients/llm/requirements.txt -> .venv-clients/llm, a virtual environment
tests/clients/ai_sdk/package-lock.json -> .venv-clients/ai_sdk, a folder with node_modules
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv-clients"
PREPARE_S = 900
"""To fetch and unpack the packages of one client."""
_STAMP = ".made-from"


class NotPrepared(Exception):
    """An environment cannot be made; the text is what the installer wrote."""


@dataclass(frozen=True)
class Client:
    """A folder of tests/clients with a lock file."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def uses_node(self) -> bool:
        return (self.folder / "package.json").exists()

    @property
    def lock_file(self) -> Path:
        return self.folder / ("package-lock.json" if self.uses_node else "requirements.txt")

    @property
    def environment(self) -> Path:
        return ENVIRONMENTS / self.name

    def versions(self) -> dict[str, str]:
        """Return the packages that the client's folder is about, and their locked versions."""
        if self.uses_node:
            named = json.loads((self.folder / "package.json").read_text())["dependencies"]
            locked = json.loads(self.lock_file.read_text())["packages"]
            return {name: locked[f"node_modules/{name}"]["version"] for name in named}
        lines = (self.folder / "requirements.in").read_text().splitlines()
        names = [re.split(r"[\[<>=~!; ]", line)[0] for line in lines if re.match(r"\w", line)]
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)", self.lock_file.read_text(), re.MULTILINE))
        return {name: pins[name.lower()] for name in names}

    def prepare(self) -> None:
        """Make the environment, unless it was made from this very lock file before.

        Raises:
            NotPrepared: the packages cannot be installed.
        """
        stamp = self.environment / _STAMP
        made_from = hashlib.sha256(self.lock_file.read_bytes() + sys.version.encode()).hexdigest()
        if not stamp.exists() or stamp.read_text() != made_from:
            shutil.rmtree(self.environment, ignore_errors=True)
            self.environment.mkdir(parents=True)
            self._install()
            stamp.write_text(made_from)

    def lock(self) -> None:
        """Resolve the newest versions that the folder's requirements allow into its lock file."""
        if self.uses_node:
            npm = ("npm", "update", "--package-lock-only", "--no-audit", "--no-fund")
            run([*npm, "--ignore-scripts"], self.folder)
            return
        options = ["--universal", "--python-version", "3.11", "--upgrade", "--quiet"]
        named = ["--custom-compile-command", "make lock-clients", "--output-file"]
        run(
            [uv(), "pip", "compile", "requirements.in", *options, *named, self.lock_file.name],
            self.folder,
        )

    def command(self, report: Path) -> list[str]:
        """Return what runs the tests in the environment and leaves a JUnit file at `report`."""
        if self.uses_node:
            tests = sorted(p.name for p in self.folder.glob("*.test.mjs"))
            reporters = ("--test-reporter=spec", "--test-reporter-destination=stdout")
            junit = ("--test-reporter=junit", f"--test-reporter-destination={report}")
            return ["node", "--test", *reporters, *junit, *tests]
        python = str(self.environment / "bin" / "python")
        options = ("-c", str(HERE / "pytest.ini"), "--rootdir", str(self.folder))
        where = (f"--confcutdir={self.folder}", "-p", "no:cacheprovider")
        return [python, "-m", "pytest", *options, *where, f"--junitxml={report}", str(self.folder)]

    def working_directory(self) -> Path:
        """Return where the command is to run; Node finds packages beside the tests only."""
        if not self.uses_node:
            return self.folder
        for file in (*self.folder.glob("*.mjs"), *self.folder.glob("*.yaml")):
            shutil.copy(file, self.environment)
        return self.environment

    def _install(self) -> None:
        if self.uses_node:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(self.folder / name, self.environment)
            quiet = ("--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
            run(["npm", "ci", *quiet], self.environment)
            return
        run(
            [uv(), "venv", "--quiet", "--allow-existing", "--python", sys.executable, "."],
            self.environment,
        )
        python = str(self.environment / "bin" / "python")
        run(
            [uv(), "pip", "sync", "--quiet", "--python", python, str(self.lock_file)],
            self.environment,
        )


def clients() -> list[Client]:
    """Return all clients in the order of their names."""
    folders = (path for path in sorted(HERE.iterdir()) if path.is_dir())
    return [
        Client(f) for f in folders if any(f.glob("requirements.in")) or any(f.glob("package.json"))
    ]


def uv() -> str:
    """Return the command that comes with the packages of the tests."""
    return str(Path(sys.executable).parent / "uv")


def run(command: list[str], folder: Path) -> None:
    """Run an installer.

    Raises:
        NotPrepared: it failed.
    """
    try:
        ran = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=PREPARE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPrepared(f"{command[0]}: {error}") from error
    if ran.returncode != 0:
        raise NotPrepared(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")
