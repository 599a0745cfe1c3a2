"""The scores that are claimed, and that the script which counts them finds what is wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance import score as module
from tests.conformance.exclusions import EXCLUSIONS
from tests.conformance.score import GROUPS, LEAST, METHODS, our_document, score_group
from tests.data import pinned_specification

COMPLETE = ("Files", "Vector Stores", "Embeddings", "Models", "Chat", "Responses")
"""Groups that are served as a whole."""
OURS_ONLY = re.compile(
    r"LastError\.detail|SearchHit\.(title|start|end|scores|version_id)|VectorStoreObject\.(description|chunking_strategy)"
    r"|UpdateVectorStore\.description|CreateStoreFile\.source|StoreFileObject\.(filename|source|progress)|.*\.mode"
)
"""Fields of ours that have the name of one of OpenAI's elsewhere."""


@pytest.fixture(scope="module")
def pinned() -> dict[str, Any]:
    return pinned_specification()


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    return dict(our_document())


@pytest.mark.parametrize("group", COMPLETE)
def test_a_group_reaches_its_score(pinned: dict[str, Any], ours: dict[str, Any], group: str) -> None:
    found = score_group(pinned, ours, group)
    assert found.share >= LEAST[group], "\n".join(found.problems)
    assert found.properties >= 14


def test_what_is_left_out_is_there(pinned: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()

    def noted(place: str) -> str | None:
        pattern = next((pattern for pattern in EXCLUSIONS if re.fullmatch(pattern, place)), None)
        used.update([pattern] if pattern else [])
        return pattern

    monkeypatch.setattr(module, "excluded", noted)
    for group in GROUPS:
        before = set(used)
        score_group(pinned, pinned_as_ours(pinned), group)
        assert used == before or group in ("Chat", "Responses")
    assert EXCLUSIONS.keys() - used == set()


def test_the_specification_is_like_itself(pinned: dict[str, Any]) -> None:
    same = pinned_as_ours(pinned)
    for group in GROUPS:
        assert score_group(pinned, same, group).problems == []


def pinned_as_ours(pinned: dict[str, Any]) -> dict[str, Any]:
    return {**pinned, "paths": {f"/v1{path}": item for path, item in pinned["paths"].items()}}


def _as_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "anyOf": [part for part in schema["anyOf"] if part != {"type": "null"}]}


def _fewer(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "enum": schema["enum"][1:]}


DAMAGE: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "another type": (
        lambda schema: True,
        lambda schema: {"type": "boolean" if schema.get("type") != "boolean" else "string"},
    ),
    "null": (lambda schema: {"type": "null"} not in schema.get("anyOf", []), _as_null),
    "no null": (lambda schema: {"type": "null"} in schema.get("anyOf", []), _not_null),
    "fewer values": (lambda schema: "enum" in schema, _fewer),
    "fewer kinds": (lambda schema: len(schema.get("oneOf", ())) > 1, lambda schema: {"oneOf": schema["oneOf"][1:]}),
    "no items": (lambda schema: "items" in schema, lambda schema: {**schema, "items": {"type": "null"}}),
}
"""How a field's schema is spoilt: where that can be done, and what comes of it."""


LENIENT = "UpdateStoreFile.attributes required"
"""An update of ours may name permission tags alone, which the score counts as a problem."""


@pytest.mark.parametrize("group", ["Files", "Vector Stores", "Embeddings", "Models"])
def test_every_damage_is_found(pinned: dict[str, Any], ours: dict[str, Any], group: str) -> None:
    found = {place: score_group(pinned, spoilt, group).problems for place, spoilt in _spoilt(pinned, ours, group)}
    assert {place for place, problems in found.items() if not problems} <= {LENIENT}
    assert len(found) > 40


def _spoilt(pinned: dict[str, Any], ours: dict[str, Any], group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our document with one thing spoilt, for each thing that the specification names."""
    paths = [path for path in ours["paths"] if path.removeprefix("/v1") in pinned["paths"]]
    for path in paths:
        if not path.startswith(f"/v1{GROUPS[group]}"):
            continue
        for method in METHODS:
            if method in ours["paths"][path]:
                yield f"{method} {path}", _without(ours, "paths", path, method)
                for number in range(len(ours["paths"][path][method].get("parameters", []))):
                    yield f"{method} {path} {number}", _without(ours, "paths", path, method, "parameters", number)
    for name in _components(ours, paths, GROUPS[group]):
        schema = ours["components"]["schemas"][name]
        for field, said in schema.get("properties", {}).items():
            if not _is_pinned(pinned, field) or OURS_ONLY.fullmatch(f"{name}.{field}"):
                continue
            where = ("components", "schemas", name, "properties", field)
            yield f"{name}.{field} gone", _without(ours, *where)
            for what, (fits, spoil) in DAMAGE.items():
                if fits(said):
                    yield f"{name}.{field} {what}", _with(ours, spoil(said), *where)
            required = [other for other in schema.get("required", ()) if other != field]
            if len(required) == len(schema.get("required", ())):
                required.append(field)
            yield f"{name}.{field} required", _with(ours, required, "components", "schemas", name, "required")


def _is_pinned(pinned: dict[str, Any], field: str) -> bool:
    return any(field in schema.get("properties", {}) for schema in pinned["components"]["schemas"].values())


def _components(ours: dict[str, Any], paths: list[str], prefix: str) -> list[str]:
    """The components that these operations refer to, also by way of others; not those of errors."""
    found: list[str] = []
    waiting: list[Any] = [ours["paths"][path] for path in paths if path.startswith(f"/v1{prefix}")]
    while waiting:
        for name in re.findall(r"'#/components/schemas/(\w+)'", str(waiting.pop())):
            if name not in found and not name.startswith("Error"):
                found.append(name)
                waiting.append(ours["components"]["schemas"][name])
    return found


def _with(document: dict[str, Any], value: Any, *where: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    inner: Any = changed
    for part in where[:-1]:
        inner = inner[part]
    inner[where[-1]] = value
    return changed


def _without(document: dict[str, Any], *where: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    inner: Any = changed
    for part in where[:-1]:
        inner = inner[part]
    del inner[where[-1]]
    return changed
