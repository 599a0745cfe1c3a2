"""The table of the lines that `python -m tests.benchmarks.peers` has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    ("ready s", "ready", "{:.1f}"),
    ("documents/s", "documents/s", "{:,.1f}"),
    ("tokens/s", "tokens/s", "{:,.0f}"),
    ("of bare", "of bare", "{:.2f}"),
    ("query p50 ms", "query p50", "{:.1f}"),
    ("p95", "query p95", "{:.1f}"),
    ("nDCG@10", "nDCG@10", "{:.4f}"),
    ("MB at most, ingest", "ingest MB", "{:,.0f}"),
    ("MB at most, query", "query MB", "{:,.0f}"),
)
EXPLAINED = """\
Made by `python -m tests.benchmarks.peers`. *ready*: from the start of a process to its first answer out of what is
stored. *documents/s, tokens/s*: from the first text to all of them stored and findable, models loaded before; tokens
are those that the model reads, counted with its own tokenizer for all. *query*: one after the other, ten hits.
*nDCG@10*: documents, each by its best text. *MB*: the whole tree of processes, by proportional share. A dash: not
applicable.
"""
KINDS = {"chunks": "all given this project's chunks", "whole": "the others given the documents uncut"}


def write_table(results: Path, documents: int, titles: Mapping[str, str]) -> None:
    """Write and print the table of the latest lines for this many documents, beside the lines."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        if line["documents"] == documents:
            found[line["kind"]][line["name"]] = line
    parts = [EXPLAINED]
    for kind, rows in found.items():
        if rows:
            parts += [f"\n**{documents:,} abstracts of SciFact, {KINDS[kind]}**\n\n", *_table(rows, titles)]
    page = "".join(parts)
    results.with_suffix(".md").write_text(page)
    print(f"\n{page}")


def _table(rows: Mapping[str, dict[str, Any]], titles: Mapping[str, str]) -> list[str]:
    heads = [head for head, _, _ in COLUMNS]
    text = [f"| | {' | '.join(heads)} |\n", "|---" * (len(heads) + 1) + "|\n"]
    notes: dict[str, None] = {}
    bare = rows.get("bare", {}).get("tokens/s")
    for name, title in titles.items():
        row = rows.get(name)
        if row is None:
            continue
        if "reason" in row:
            text.append(f"| {title} | {row['reason'].replace('|', '/')} |\n")
            continue
        if bare:
            row["of bare"] = row["tokens/s"] / bare
        cells = [form.format(row[key]) if key in row else "–" for _, key, form in COLUMNS]
        text.append(f"| {title} | {' | '.join(cells)} |\n")
        if "http ready" in row:
            http = {key.removeprefix("http "): value for key, value in row.items() if key.startswith("http ")}
            cells = [form.format(http[key]) if key in http else "–" for _, key, form in COLUMNS]
            text.append(f"| the same over HTTP, `rag serve` | {' | '.join(cells)} |\n")
        notes[_note(row)] = None
    return [*text, "\n", *(f"- {note}\n" for note in notes), *_versions(rows)]


def _note(row: Mapping[str, Any]) -> str:
    return (
        f"{row['texts']:,} texts, {row['tokens']:,} tokens, at most {row['limit']} of a text; "
        f"{row['machine']}, {row['date']}"
    )


def _versions(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    """Of the peers' environment and of this project's."""
    text = []
    for place, ours in (("here", True), ("the peers", False)):
        found: dict[str, str] = {}
        for name, row in rows.items():
            if (name in ("ours", "encoder")) is ours:
                found |= row.get("versions", {})
        if found:
            text.append(f"- {place}: {', '.join(f'{name} {version}' for name, version in sorted(found.items()))}\n")
    return text
