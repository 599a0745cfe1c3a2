"""`rag eval`: how good retrieval is on a set with judgements."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from api.client import Json
from api.commands.call import Call, require_here, settings_of
from api.commands.output import note, print_json, print_text
from api.commands.progress import stages
from ingest.beir import BeirReport, read_beir, run_beir
from rag.retrieve import Mode


def run(
    call: Call, folder: Path, *, embedder: str | None, mode: Mode | None, limit_documents: int | None, keep: bool
) -> None:
    """Take the set into a scratch data folder, ask its questions, print what comes of it."""
    require_here(call, "An evaluation")
    dataset = read_beir(folder, limit_documents)
    settings = settings_of(call)
    scratch = Path(tempfile.mkdtemp(prefix="rag-eval-"))
    try:
        with stages(as_json=call.json) as progress:
            report = run_beir(
                settings.model_copy(update={"data": scratch}), dataset, embedder=embedder, mode=mode, progress=progress
            )
    finally:
        if keep:
            note(f"The data folder stays at {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    if call.json:
        print_json(as_json(report))
    else:
        _print(report)


def as_json(report: BeirReport) -> Json:
    """A report for machines; times in seconds for the ingest and milliseconds for a query."""
    taken, query = report.ingest, report.query
    return {
        "dataset": report.dataset,
        "embedder": report.embedder,
        "mode": report.mode,
        "queries": report.measured.queries,
        "judgements_left_out": report.left_out,
        "measures": dict(report.measured.means),
        "documents": taken.documents,
        "completed": taken.completed,
        "failed": dict(taken.failed),
        "chunks": taken.chunks,
        "embedded": taken.embedded,
        "embedded_tokens": taken.embedded_tokens,
        "ingest_seconds": round(taken.seconds, 3),
        "tokens_per_second": round(taken.embedded_tokens / taken.seconds, 1),
        "documents_per_second": round(taken.documents / taken.seconds, 2),
        "query_ms": {"p50": round(query.p50, 3), "p95": round(query.p95, 3)},
        "query_ms_beyond_embedding": {
            "p50": round(query.p50_beyond_embedding, 3),
            "p95": round(query.p95_beyond_embedding, 3),
        },
    }


def _print(report: BeirReport) -> None:
    taken, query = report.ingest, report.query
    print_text(f"{report.dataset}: {report.mode}, {report.embedder}, n = {report.measured.queries:,} queries")
    if report.left_out:
        print_text(f"  {report.left_out:,} judgements left out: queries.jsonl lacks their questions")
    print_text("  " + "   ".join(f"{_shown(name)} {value:.4f}" for name, value in report.measured.means.items()))
    print_text(
        f"  ingest: {taken.documents:,} documents in {taken.seconds:.1f} s ({taken.documents / taken.seconds:.1f}/s), "
        f"{taken.chunks:,} chunks, {taken.embedded_tokens:,} tokens embedded "
        f"({taken.embedded_tokens / taken.seconds:,.0f}/s)"
    )
    for code, number in taken.failed.items():
        print_text(f"  {number:,} documents failed: {code}")
    print_text(
        f"  query: p50 {query.p50:.1f} ms, p95 {query.p95:.1f} ms; beyond embedding p50 "
        f"{query.p50_beyond_embedding:.1f} ms, p95 {query.p95_beyond_embedding:.1f} ms"
    )


def _shown(measure: str) -> str:
    return {"R@100": "recall@100", "RR@10": "MRR@10"}.get(measure, measure)
