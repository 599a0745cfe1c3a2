"""Is the server alive, is it ready, and what is it doing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from fastapi import Request
from starlette.responses import JSONResponse

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import ResponseModel
from rag import listing

PACKAGES = (
    "rag",
    "fastapi",
    "sqlalchemy",
    "dbos",
    "faiss-cpu",
    "tantivy",
    "onnxruntime",
    "sentence-transformers",
    "torch",
)

router = new_router(tags=["health"])


class Ready(ResponseModel):
    """Whether requests can be served; if not, what is missing, in words."""

    status: Literal["starting", "ready"]
    missing: list[str]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "Not yet."}})
def readyz(request: Request) -> JSONResponse:
    """Whether requests can be served now; if not, what is missing."""
    missing = request.app.state.readiness.missing()
    return JSONResponse({"status": "starting" if missing else "ready", "missing": missing}, 503 if missing else 200)


@router.get("/v1/status", dependencies=[requires("admin")])
def status(request: Request, backend: OpenBackend) -> dict[str, Any]:
    """What this process does and with what."""
    runner = request.app.state.runner
    load = listing.workload(backend)
    return {
        "object": "status",
        "runs_jobs": runner is not None and runner.runs_here,
        "waiting_documents": load.waiting_documents,
        "open_batches": load.open_batches,
        "embedder": backend.settings.embedder,
        "model": backend.models.get().name,
        "vector_index": backend.settings.vector_index,
        "keyword_index": backend.settings.keyword_index,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
