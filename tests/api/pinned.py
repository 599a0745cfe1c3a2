"""The pinned part of OpenAI's specification, and whether what was sent is as it says."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import pytest

from tests.data import data_root


def conforms(schema: str, value: Any) -> None:
    """Check a value against a schema of the specification. Skips, saying why, where that is absent."""
    validator = jsonschema.Draft202012Validator({**_specification(), "$ref": f"#/components/schemas/{schema}"})
    faults = [f"{fault.json_path}: {fault.message[:300]}" for fault in validator.iter_errors(value)]
    assert not faults, (schema, faults)


@cache
def _specification() -> dict[str, Any]:
    path = data_root().parent / "openapi" / "openai-subset.json"
    if not path.is_file():
        pytest.skip(f"the pinned specification is not at {path}")
    found: dict[str, Any] = _with_nulls(json.loads(path.read_text(encoding="utf-8")))
    return {"components": found["components"]}


def _with_nulls(node: Any) -> Any:
    """The same with `nullable`, an older word that validators do not know, as a type."""
    if isinstance(node, list):
        return [_with_nulls(one) for one in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _with_nulls(value) for name, value in node.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if node.get("nullable") is True else inner
