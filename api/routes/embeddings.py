"""Embeddings: texts as vectors of any embedder of the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio.to_thread
import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.responses import JSONResponse, Response

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.embeddings import EmbeddingList, EmbeddingObject, EmbeddingRequest, EmbeddingUsage, in_base64
from rag.embeddings import check_dimensions, open_named, read_input, shortened

AT_ONCE = 64
"""Texts between two looks whether anybody still waits for the answer."""
GONE = 499

router = new_router(tags=["embeddings"])


@router.post("/v1/embeddings", response_model=EmbeddingList, dependencies=[requires("query", "ingest")])
async def create_embeddings(body: EmbeddingRequest, request: Request, backend: OpenBackend) -> Response:
    """The vectors of texts. A text over the embedder's limit is refused: nothing is cut off."""
    embedder = await anyio.to_thread.run_sync(open_named, backend.embedders, body.model)
    dimensions = check_dimensions(backend.embedders, body.model, embedder, body.dimensions)
    texts = read_input(embedder, body.input)
    embed = embedder.embed_queries if body.input_type == "query" else embedder.embed_documents
    rows = await _embed(request, embed, texts)
    if rows is None:
        return Response(status_code=GONE)
    tokens = await anyio.to_thread.run_sync(lambda: sum(embedder.tokenizer.count(text) for text in texts))
    return await anyio.to_thread.run_sync(_answer, body, shortened(rows, dimensions), tokens)


async def _embed(
    request: Request, embed: Callable[[Sequence[str]], NDArray[np.float32]], texts: list[str]
) -> NDArray[np.float32] | None:
    """The vectors, None when the caller has left meanwhile."""
    rows = []
    for start in range(0, len(texts), AT_ONCE):
        if await request.is_disconnected():
            return None
        rows.append(await anyio.to_thread.run_sync(embed, texts[start : start + AT_ONCE]))
    return np.concatenate(rows)


def _answer(body: EmbeddingRequest, rows: NDArray[np.float32], tokens: int) -> Response:
    """Put together by hand: to validate a million numbers takes as long as to compute them."""
    if body.encoding_format == "base64":
        vectors: list[str] | list[list[float]] = [in_base64(row) for row in rows]
    else:
        vectors = rows.tolist()
    answer = EmbeddingList.model_construct(
        data=[EmbeddingObject.model_construct(index=i, embedding=vector) for i, vector in enumerate(vectors)],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
    return JSONResponse(answer.model_dump(warnings=False))
