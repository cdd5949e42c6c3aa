"""The house's sizes, counted: small functions, small modules, and a budget for all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

# All of the source is parsed, which a busy machine takes more than a minute for.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 50
MAX_ARGUMENTS = 6
MAX_MODULES = 12
"""Of a package, besides its `__init__`."""
MAX_SOURCE_LINES = 102_000
"""All of services/. Raised only by a commit that says why. No code golf: fewer ideas, not denser
lines."""


def modules() -> list[Path]:
    tops = ("services", "tests", "benchmarks", "tools")
    found = (p for top in tops for p in (ROOT / top).rglob("*.py"))
    made = ("_pb2.py", "_pb2_grpc.py")
    return sorted(p for p in found if not p.name.endswith(made) and "node_modules" not in p.parts)


@cache
def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All of them; read once, for that takes seconds."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Compiled for a GPU: its arguments are what the device needs, not what a reader holds."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in node.decorator_list)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def worst(sizes: dict[str, int], limit: int) -> list[tuple[int, str]]:
    return sorted(((n, name) for name, n in sizes.items() if n > limit), reverse=True)[:5]


def test_no_module_is_longer_than_its_stop() -> None:
    sizes = {str(p.relative_to(ROOT)): p.read_text().count("\n") for p in modules()}
    assert worst(sizes, MAX_MODULE_LINES) == []


def test_no_function_is_longer_than_its_stop() -> None:
    sizes = {name: body_lines(n) for name, n in functions() if not is_kernel(n)}
    assert worst(sizes, MAX_FUNCTION_LINES) == []


def test_no_function_takes_more_positional_arguments_than_a_reader_can_hold() -> None:
    sizes = {
        name: len([a for a in n.args.args if a.arg not in ("self", "cls")])
        for name, n in functions()
        if not is_kernel(n)
    }
    assert worst(sizes, MAX_ARGUMENTS) == []


def test_the_source_keeps_its_budget() -> None:
    lines = sum(p.read_text().count("\n") for p in modules() if p.is_relative_to(ROOT / "services"))
    assert lines <= MAX_SOURCE_LINES, f"{lines} lines of source"


def packages() -> Iterator[tuple[Path, list[Path]]]:
    """Each package of `services/`, and its modules."""
    for init in sorted((ROOT / "services").rglob("__init__.py")):
        found = [p for p in init.parent.glob("*.py") if p != init and "_pb2" not in p.name]
        yield init.parent, found


def test_no_package_has_more_modules_than_a_reader_can_survey() -> None:
    sizes = {str(folder.relative_to(ROOT)): len(found) for folder, found in packages()}
    assert worst(sizes, MAX_MODULES) == []


def test_every_package_says_what_it_is_for() -> None:
    for folder, found in packages():
        if found:
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_tests_lie_where_the_packages_lie_that_they_test() -> None:
    """`tests/unit/gateway/queue` tests `headrace_gateway.queue`, and so on."""
    tops = {"common": "services/common/headrace"} | {
        name: f"services/{name}/headrace_{name}"
        for name in ("gateway", "scheduler", "worker", "control", "local", "web")
    }
    for kind in ("unit", "component"):
        for test in (ROOT / "tests" / kind).rglob("test_*.py"):
            service, *package = test.relative_to(ROOT / "tests" / kind).parent.parts or ("",)
            if service:
                assert (ROOT / tops[service] / Path(*package) / "__init__.py").exists(), test


def test_migrations_of_the_database_follow_one_another() -> None:
    """Two of one number, merged from two branches, keep control from starting."""
    folder = ROOT / "services/control/headrace_control/store/migrations/versions"
    found: list[dict[str, object]] = []
    for path in sorted(folder.glob("v*.py")):
        body = ast.parse(path.read_text()).body
        found.append(
            {ast.unparse(n.targets[0]): n.value for n in body if isinstance(n, ast.Assign)}
        )
    values = [
        tuple(ast.literal_eval(each[name]) for name in ("down_revision", "revision"))  # type: ignore[arg-type]
        for each in found
    ]
    numbers = [f"{number:04}" for number in range(1, len(values) + 1)]
    assert values == list(zip([None, *numbers], numbers, strict=False))
