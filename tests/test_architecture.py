"""The house rules that a reader cannot see in one file: who imports whom, and what start-up costs."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("embedsvc", "indexing", "training")
HEAVY = {"torch", "sentence_transformers", "transformers", "onnx"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, *, at_start_only: bool) -> set[str]:
    """Dotted names that a file imports: anywhere in it, or only when it is itself imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if at_start_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if at_start_only and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            if isinstance(child, ast.ImportFrom) and child.module:
                found.update([child.module, *(f"{child.module}.{alias.name}" for alias in child.names)])
            visit(child)

    visit(tree(path))
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("indexing", {"embedsvc", "training", "tokenizers", "fastapi", "pydantic", *HEAVY}),
        ("embedsvc", {"training"}),
        ("training", {"fastapi", "uvicorn"}),
    ],
)
def test_imports_point_in_one_direction(package: str, forbidden: set[str]) -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == package:
            roots = {target.split(".")[0] for target in imported(path, at_start_only=False)}
            assert not roots & forbidden, f"{name} imports {roots & forbidden}"


def test_training_does_not_import_the_server() -> None:
    for name, path in MODULES.items():
        if name.startswith("training"):
            targets = imported(path, at_start_only=False)
            assert not {t for t in targets if t.startswith("embedsvc.server")}, name


def test_only_the_torch_runtimes_import_torch() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if name.startswith("embedsvc")
        and HEAVY & {target.split(".")[0] for target in imported(path, at_start_only=False)}
    }
    assert users <= {"embedsvc.encoders.pytorch", "embedsvc.encoders.cross_torch"}


def test_there_is_no_import_cycle() -> None:
    graph = {
        name: {
            target for target in imported(path, at_start_only=True) if target in MODULES and target != name
        }
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                walk(target, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_serving_loads_no_torch() -> None:
    code = (
        "import sys; from embedsvc import Settings, create_app, load_encoder, mine, Collection;"
        "create_app(Settings()); load_encoder().encode(['Guten Morgen']);"
        f"print(sorted({HEAVY | {'training'}!r} & set(sys.modules)))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EMBEDSVC_")}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_help_costs_less_than_half_a_second_of_processor_time() -> None:
    """Processor time, least of three: the machine may be busy, the command may not."""
    costs: list[float] = []
    while len(costs) < 3 and not (costs and costs[-1] < 0.5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", "from embedsvc.cli import main; main()", "--help"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "encode" in answer.stdout
    assert min(costs) < 0.5
