"""Parse every file of two public corpora in the sandbox: `python -m tests.benchmarks.parse_corpora [OUT.json]`.

Prints one line per file and a summary; nothing may hang, die, or write outside of scratch, and the pool must still
serve a good file afterwards. Word recall is the share of the words of the expected Markdown (or of the strings that
must be included) found in the text.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ingest.document import check
from ingest.failures import DocumentFailure
from ingest.sandbox import ParseLimits, ParserPool
from tests.data import data_root

_WORD = re.compile(r"\w{2,}")


def parse_folder(pool: ParserPool, folder: Path) -> list[dict[str, Any]]:
    """One record per file of the folder's manifest."""
    records = []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        records.append(parse_one(pool, folder, entry))
    return records


def parse_one(pool: ParserPool, folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Outcome, size, time, and the recall of expected words where the manifest names some."""
    path = folder / entry["path"]
    record: dict[str, Any] = {"path": entry["path"], "extension": path.suffix.lower().lstrip(".")}
    began = time.perf_counter()
    try:
        document = pool.parse(path, path.name)
    except DocumentFailure as failure:
        record |= {"outcome": failure.code, "message": failure.message}
    else:
        check(document)
        record |= {"outcome": "completed", "media_type": document.media_type, "title": document.title}
        record |= {"characters": len(document.text), "blocks": dict(Counter(block.kind for block in document.blocks))}
        record |= expected_recall(document.text, folder, entry)
    record["milliseconds"] = round((time.perf_counter() - began) * 1000, 1)
    return record


def expected_recall(text: str, folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Recall of words, and which of those expected are missing."""
    if "expected" in entry:
        wanted = re.sub(r"<!--.*?-->|\]\([^)]*\)|&\w+;|<[^>]+>", " ", (folder / entry["expected"]).read_text())
    elif entry.get("must_include"):
        wanted = re.sub(r"\]\([^)]*\)", " ", " ".join(entry["must_include"]))
    else:
        return {}
    words = Counter(_WORD.findall(wanted.lower().replace("\\_", "_")))
    have = set(_WORD.findall(text.lower()))
    missing = [word for word in words if word not in have]
    return {"recall": round(1 - len(missing) / max(len(words), 1), 3), "missing": missing[:12]}


def snapshot(folders: list[Path]) -> dict[str, int]:
    """Files and their times of change below some folders."""
    return {str(p): p.lstat().st_mtime_ns for folder in folders for p in folder.rglob("*") if not p.is_dir()}


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of outcomes, the slowest files, the median time by type."""
    by_type: dict[str, list[float]] = {}
    for record in records:
        if record["outcome"] == "completed":
            by_type.setdefault(record["media_type"], []).append(record["milliseconds"])
    return {
        "files": len(records),
        "outcomes": dict(Counter(record["outcome"] for record in records)),
        "slowest": sorted(((r["milliseconds"], r["path"]) for r in records), reverse=True)[:5],
        "median_milliseconds": {kind: statistics.median(times) for kind, times in sorted(by_type.items())},
    }


def main() -> None:
    """Run both corpora and print what came of them."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    report: dict[str, Any] = {}
    watched = [data_root() / "multiformat", data_root() / "hostile_docs", Path("ingest"), Path("/etc")]
    with tempfile.TemporaryDirectory() as scratch, ParserPool(ParseLimits(), Path(scratch)) as pool:
        report["confinement"] = vars(pool.confinement())
        before = snapshot(watched)
        for name in ("multiformat", "hostile_docs"):
            records = parse_folder(pool, data_root() / name)
            for record in records:
                print(
                    f"{name:12} {record['outcome']:16} {record['milliseconds']:8.1f} ms  {record['path'][6:]}", end="  "
                )
                print(record.get("message") or f"{record['characters']} characters, recall {record.get('recall', '-')}")
            report[name] = {"summary": summary(records), "records": records}
        good = data_root() / "multiformat" / "files" / "docling" / "docx" / "unit_test_headers.docx"
        report["good_file_afterwards"] = pool.parse(good, good.name).title
        after = snapshot(watched)
        report["changed_outside"] = [
            p for p in after.keys() | before.keys() if after.get(p) != before.get(p) and ".pyc" not in p
        ]
        report["left_in_scratch"] = [p.name for p in Path(scratch).iterdir() if p.name != "parser.log"]
    for name in ("multiformat", "hostile_docs"):
        print(name, json.dumps(report[name]["summary"], indent=1))
    print({key: value for key, value in report.items() if key not in ("multiformat", "hostile_docs")})
    if out:
        out.write_text(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
