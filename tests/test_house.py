"""The house: four rooms, imports in one direction, nothing loose at the top."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "indexes": {"indexes"},
    "rag": {"rag", "indexes"},
    "ingest": {"ingest", "rag", "indexes"},
    "api": {"api", "ingest", "rag", "indexes"},
}
TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "api",
    "compose.yaml",
    "constraints.txt",
    "indexes",
    "ingest",
    "pyproject.toml",
    "rag",
    "tests",
}
FORBIDDEN_CALLS = ("pickle", "marshal", "shelve", "joblib", "dill")


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room: str) -> None:
    for path in sources(room):
        wrong = (imported(path) & (set(MAY_IMPORT) | {"tests"})) - MAY_IMPORT[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_nothing_loads_what_could_run_code(room: str) -> None:
    for path in sources(room):
        assert not imported(path) & set(FORBIDDEN_CALLS), path
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8"), path


def test_api_knows_no_sql() -> None:
    for path in sources("api"):
        assert not imported(path) & {"sqlalchemy", "faiss", "tantivy", "qdrant_client", "openai"}, path


def test_only_what_belongs_stands_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert {name.partition("/")[0] for name in tracked} <= TOP


def test_constraints_name_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    for line in lines:
        name, separator, version = line.partition("==")
        assert separator, line
        assert name, line
        assert version[0].isdigit(), line
        assert "/" not in line, line
