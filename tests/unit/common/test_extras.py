"""What works with the smallest installation, and the error where an extra is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.extras import MissingExtra, require, require_binary, require_package

OPTIONAL = (
    *("envoy", "nats", "psutil", "torch", "transformers", "tokenizers", "prometheus_client"),
    *("pydantic", "pydantic_settings", "uvloop", "jinja2", "grpc_health", "grpc_reflection"),
)
WITHOUT = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def run(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", code, *arguments)
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=50)


def test_the_client_imports_neither_a_web_client_nor_a_service_s_dependencies(
    tmp_path: Path,
) -> None:
    code = f"import headrace.client, sys; print(*(sys.modules.keys() & {{'httpx', *{OPTIONAL}}}))"
    # grpc itself imports the two where they are installed.
    imported = set(run(code, folder=tmp_path).stdout.split())
    assert imported <= {"grpc_health", "grpc_reflection"}


@pytest.mark.parametrize(
    "module", ["headrace.client", "headrace.cli.main", "headrace.supervisor.mesh", "headrace.bus"]
)
def test_client_command_line_and_supervisor_are_imported_without_any_extra(
    module: str, tmp_path: Path
) -> None:
    imported = run(f"{WITHOUT}\nimport {module}", folder=tmp_path)
    assert imported.returncode == 0, imported.stderr


@pytest.mark.parametrize("command", [("up",), ("dead-letters", "--nats-url", "nats://[::1]:9")])
def test_a_command_that_needs_an_extra_names_it(command: tuple[str, ...], tmp_path: Path) -> None:
    ran = run(f"{WITHOUT}\nfrom headrace.cli.main import main\nmain()", *command, folder=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("headrace: this needs the mesh extra: pip install 'headrace[mesh]")
    assert ran.stderr.count("\n") == 1


def test_a_module_that_is_broken_is_not_taken_for_a_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("import that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="that_is_not_there"):
        require("mesh", "broken_module")


def test_what_a_package_of_ours_lacks_names_the_extra_unless_it_is_ours_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "headrace_lacking.py").write_text("import that_is_not_there")
    (tmp_path / "headrace_broken.py").write_text("import headrace.that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"worker extra.*there is no module that_is_not_there"):
        require_package("worker", "headrace_lacking")
    with pytest.raises(ModuleNotFoundError):
        require_package("worker", "headrace_broken")


def test_a_missing_binary_is_named_with_its_extra() -> None:
    with pytest.raises(MissingExtra, match=r"'headrace\[mesh\]' \(no-such-server is neither at"):
        require_binary("mesh", "no-such-server")
