"""JSON, JSON lines and notebooks: as lines of `key: value` that a reader and a search engine understand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.decoding import read_text
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder, clean
from ingest.loaders.markdown import find_blocks


def load_json(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """One block for each nested entry of the outermost value, one for neighbours that are plain values."""
    value = _parse(read_text(path))
    builder = DocumentBuilder()
    if isinstance(value, dict) and isinstance(value.get("cells"), list) and "nbformat" in value:
        _add_notebook(builder, value["cells"])
    else:
        _add_value(builder, value)
    return builder.build("application/json", title=_title(value))


def load_json_lines(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """One block for each record."""
    builder = DocumentBuilder()
    for line in read_text(path).split("\n"):
        if line.strip():
            builder.add("paragraph", "\n".join(render(_parse(line))))
    return builder.build("application/x-ndjson")


def render(value: Any, indent: str = "") -> Iterator[str]:
    """The lines of a JSON value.

    >>> list(render({"name": "Ada", "born": {"year": 1815}, "known": [True, None]}))
    ['name: Ada', 'born:', '  year: 1815', 'known:', '  - true', '  - null']
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                yield f"{indent}{key}:"
                yield from render(inner, indent + "  ")
            else:
                yield f"{indent}{key}: {_plain(inner)}"
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list) and inner:
                lines = list(render(inner, ""))
                yield f"{indent}- {lines[0]}"
                yield from (f"{indent}  {line}" for line in lines[1:])
            else:
                yield f"{indent}- {_plain(inner)}"
    else:
        yield indent + _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DocumentFailure("invalid_file", "The JSON is nested too deeply.") from error
    except ValueError as error:
        raise DocumentFailure("invalid_file", f"The JSON does not parse: {error}.") from error


def _add_value(builder: DocumentBuilder, value: Any) -> None:
    entries = [{key: inner} for key, inner in value.items()] if isinstance(value, dict) else value
    plain: list[str] = []
    for entry in entries if isinstance(entries, list) else [value]:
        inner = next(iter(entry.values())) if isinstance(value, dict) else entry
        lines = list(render(entry))
        if isinstance(inner, dict | list):
            builder.add("paragraph", "\n".join(plain))
            plain = []
            builder.add("paragraph", "\n".join(lines))
        else:
            plain.extend(lines)
    builder.add("paragraph", "\n".join(plain))


def _add_notebook(builder: DocumentBuilder, cells: list[Any]) -> None:
    """The cells of a Jupyter notebook as they read; outputs as far as they are plain text."""
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = clean(_joined(cell.get("source")))
        if cell.get("cell_type") == "markdown":
            for block in find_blocks(source):
                builder.add(block.kind, source[block.start : block.end], level=block.level)
        else:
            builder.add("code", source)
        for output in cell.get("outputs") or ():
            if isinstance(output, dict):
                data = output.get("data")
                builder.add(
                    "code", _joined(output.get("text") or (data.get("text/plain") if isinstance(data, dict) else ""))
                )


def _joined(source: Any) -> str:
    return "".join(str(line) for line in source) if isinstance(source, list) else str(source or "")


def _title(value: Any) -> str:
    if isinstance(value, dict):
        for key in ("title", "name"):
            if isinstance(value.get(key), str):
                return str(value[key])
    return ""
