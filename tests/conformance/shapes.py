"""JSON Schemas of OpenAPI documents brought to one form, so that two of them can be compared.

What says the same in another way becomes the same: `$ref`, `allOf`, nested unions, `const`, `nullable`, `type` as a
list, an enumeration beside a free string of its type, whole numbers beside numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Branch:
    """One kind of value that a schema allows."""

    kind: str
    """`object`, `array`, `string`, `number`, `integer`, `boolean`, or `any`."""
    name: str = ""
    """The component's name, where it has one."""
    enum: frozenset[str] | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    items: Any = None
    """Of an array, the schema of its items."""
    values: Any = None
    """Of a map, the schema of its values."""

    @property
    def tag(self) -> str | None:
        """What tells it from the other objects of a union: the only value of its `type` or `object`."""
        for name in ("type", "object", "role"):
            values = self.properties.get(name, {}) if isinstance(self.properties.get(name), dict) else {}
            enum = [values["const"]] if "const" in values else values.get("enum", [])
            if len(enum) == 1:
                return str(enum[0])
        return None


@dataclass(frozen=True)
class Shape:
    """A schema: the kinds of value that it allows, and whether null is one."""

    branches: tuple[Branch, ...]
    nullable: bool


def shape_of(document: Document, schema: Any) -> Shape:
    """A schema in the one form."""
    branches: list[Branch] = []
    nullable = False
    for branch in _flat(document, schema, ""):
        if branch.kind == "null":
            nullable = True
        else:
            branches.append(branch)
    return Shape(tuple(_absorbed(branches)), nullable)


def resolved(document: Document, schema: Any) -> tuple[Any, str]:
    """A schema behind its references, and the component's name."""
    name = ""
    while isinstance(schema, dict) and "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        schema = found
    return schema, name


def _flat(document: Document, schema: Any, name: str) -> Iterator[Branch]:
    if "$ref" in schema and schema.get("nullable"):
        yield Branch("null")
    schema, found = resolved(document, schema)
    name = found or name
    if "$recursiveRef" in schema:
        schema, name = document["components"]["schemas"]["CompoundFilter"], "CompoundFilter"
    if "allOf" in schema:
        schema = _merged(document, schema)
    if schema.get("nullable"):
        yield Branch("null")
    union = schema.get("anyOf") or schema.get("oneOf")
    if union and "properties" not in schema:
        for part in union:
            yield from _flat(document, part, "")
        return
    kinds = schema.get("type") or ("object" if "properties" in schema else _kind_of_values(schema))
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        yield _branch(schema, kind, name)


def _branch(schema: Mapping[str, Any], kind: str, name: str) -> Branch:
    enum = [schema["const"]] if "const" in schema else schema.get("enum")
    more = schema.get("additionalProperties")
    return Branch(
        kind,
        name,
        None if enum is None else frozenset(str(value) for value in enum if value is not None),
        schema.get("properties", {}),
        frozenset(schema.get("required", ())),
        schema.get("items"),
        more if isinstance(more, dict) else None,
    )


def _kind_of_values(schema: Mapping[str, Any]) -> str:
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return "string" if values and all(isinstance(value, str) for value in values) else "any"


def _merged(document: Document, schema: Mapping[str, Any]) -> dict[str, Any]:
    """All parts of an `allOf` as one schema."""
    merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        found, _ = resolved(document, part)
        found = _merged(document, found) if "allOf" in found else found
        for name, value in found.items():
            if name == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif name == "required":
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged.setdefault(name, value)
    return merged


def _absorbed(branches: list[Branch]) -> Iterator[Branch]:
    kinds = {branch.kind for branch in branches if branch.enum is None}
    enums: dict[str, Branch] = {}
    done: set[str] = set()
    for branch in branches:
        if branch.kind == "integer" and "number" in kinds:
            continue
        if branch.enum is not None and branch.kind in kinds:
            continue
        if branch.enum is not None:
            before = enums.get(branch.kind)
            enums[branch.kind] = (
                branch if before is None else replace(branch, enum=branch.enum | (before.enum or set()))
            )
        elif branch.kind in ("object", "array") or branch.kind not in done:
            done.add(branch.kind)
            yield branch
    yield from enums.values()
