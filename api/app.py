"""The HTTP API as one ASGI application.

uvicorn.run(create_app(load_settings()))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from types import ModuleType

import anyio.to_thread
from fastapi import FastAPI

from api.documentation import serve_page
from api.errors import install_handlers
from api.metering import Metered
from api.middleware import (
    METRICS_PATH,
    OPEN_PATHS,
    Access,
    BodyLimit,
    KnownCallers,
    NoLeaks,
    RequestId,
    is_loopback,
)
from api.openapi import describe
from api.readiness import Readiness
from api.routes import (
    ab_tests,
    chat,
    context,
    dify,
    drift,
    embeddings,
    evaluations,
    file_batches,
    files,
    folders,
    generations,
    health,
    keys,
    mcp,
    metrics,
    models,
    question_sets,
    responses,
    search,
    store_files,
    traces,
    vector_stores,
)
from indexes.errors import ChangeRequest
from ingest.runner import Runner
from rag.backend import Backend
from rag.keys import is_made
from rag.mirroring import Mirroring
from rag.settings import Settings, secret
from rag.telemetry import Telemetry

TITLE = "Retrieval-augmented generation backend"
MULTIPART_SLACK = 64 << 10
"""Bytes that the borders of a multipart body may add to the largest file."""


def create_app(
    settings: Settings, *, jobs: bool = True, warm: bool = True, telemetry: Telemetry | None = None
) -> FastAPI:
    """The application. While it runs it holds the backend open and, with `jobs`, runs ingestion (over one data folder:
    when no other process does); with `warm` it loads the embedder ahead of the first question.

    Of the settings' roles, `api` never runs jobs, and `worker` answers about its health and nothing else.
    """
    role = settings.server.role
    telemetry = telemetry or Telemetry(capture=settings.telemetry.capture)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        backend = await anyio.to_thread.run_sync(Backend, settings, telemetry)
        app.state.backend = backend
        app.state.mirroring = Mirroring(backend)
        app.state.runner = runner = Runner(backend) if jobs and role != "api" else None
        app.state.readiness = Readiness(backend, runner, warm=warm)
        try:
            async with AsyncExitStack() as stack:
                if settings.server.mcp:
                    app.state.mcp = mcp.new_door()
                    await stack.enter_async_context(app.state.mcp.running())
                yield
        finally:
            if runner is not None:
                await anyio.to_thread.run_sync(runner.close)
            await anyio.to_thread.run_sync(app.state.mirroring.close)
            await backend.close()

    app = FastAPI(
        title=TITLE,
        version=version("rag"),
        lifespan=lifespan,
        openapi_url=None,
        telemetry={
            "tracer_provider": telemetry.provider,
            "auto_configure": True,
            "logs": False,  # the messages of exceptions may repeat what somebody said
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in (*OPEN_PATHS, METRICS_PATH),
        },
    )
    install_handlers(app)
    # What people wait for comes first: routes are tried in turn.
    answers = (search, context, chat, responses, embeddings, traces, models)
    stores = (files, vector_stores, store_files, file_batches, folders, generations)
    served: tuple[ModuleType, ...] = (*answers, *stores, question_sets, evaluations, ab_tests, drift, keys, dify)
    if settings.server.mcp:
        served += (mcp,)
    for module in (*(served if role != "worker" else ()), health, metrics):
        app.include_router(module.router)
    describe(app, needs_key=api_key(settings) is not None)
    if role != "worker":
        serve_page(app)
    _add_middleware(app, settings)
    return app


def check_binding(settings: Settings) -> None:
    """Refuse to serve others than this machine without a key, and to take somebody's key for the operator's. Raises
    ChangeRequest (`key_required`, `not_the_operator`)."""
    if is_made(api_key(settings)):
        raise ChangeRequest(
            "RAG_API_KEY holds a key that `rag keys create` has made: whoever has it would be the operator. Set a key "
            "of the operator's own (`openssl rand -hex 24`), or none.",
            code="not_the_operator",
            param="server.api_key",
        )
    if not api_key(settings) and not is_loopback(settings.server.host):
        raise ChangeRequest(
            f"Without a key the server listens on loopback only, not on {settings.server.host!r}. "
            "Set RAG_API_KEY, or bind to 127.0.0.1.",
            code="key_required",
            param="server.host",
        )


def api_key(settings: Settings) -> str | None:
    """The operator's key, None when there is none: then whoever reaches the server without a key is the operator."""
    return secret(settings.server.api_key)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """From the inside out: the last one added sees a request first."""
    server = settings.server
    app.add_middleware(BodyLimit, most=(server.max_body_mb << 20) + MULTIPART_SLACK)
    app.add_middleware(Access, settings=settings)
    if server.allowed_origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware, allow_origins=server.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(KnownCallers, bound=server.host, hosts=server.allowed_hosts, origins=server.allowed_origins)
    app.add_middleware(NoLeaks)
    app.add_middleware(dify.DifyErrors)
    app.add_middleware(RequestId)
    app.add_middleware(Metered)
