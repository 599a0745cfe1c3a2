"""Dify's external knowledge: an application there retrieves from a store here.

The address to enter there is that of this server and `/v1/dify`; Dify adds `/retrieval`. It looks at the status alone
when the address is entered, and there only 403 is a refused key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.dify import Records, RetrievalRequest, filter_of, record_of
from indexes.filters import parse_filter
from rag import live
from rag.retrieve import SearchOptions

PATH = "/v1/dify/retrieval"
CODES: Mapping[str, int] = {"missing_api_key": 1001, "vector_store_not_found": 2001}
"""Dify's own numbers of errors, by our codes."""
REFUSED_KEY = 1002

router = new_router(tags=["dify"])


@router.post(PATH, dependencies=[requires("query")])
def retrieve_for_dify(body: RetrievalRequest, backend: OpenBackend) -> Records:
    """The best chunks of the store that `knowledge_id` names.

    Errors have Dify's `error_code` and `error_msg` too: 1001 for no key, 1002 for one that is refused, 2001 for a store
    that is not there, else the status.
    """
    asked = filter_of(body.metadata_condition)
    options = SearchOptions(
        limit=body.retrieval_setting.top_k,
        condition=None if asked is None else parse_filter(asked),
        min_relevance=body.retrieval_setting.score_threshold,
    )
    found = live.search(backend, [backend.find_store(body.knowledge_id)], body.query, options)
    return Records(records=[record_of(candidate) for candidate in found.candidates])


class DifyErrors:
    """Says errors at that path in Dify's words too, whoever raised them on the way in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translated(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                await _send_error(start, body, send)

        await self._app(scope, receive, translated)


async def _send_error(start: Message, body: bytes, send: Send) -> None:
    said = json.loads(body)
    error, status = said["error"], start["status"]
    number = CODES.get(error["code"], REFUSED_KEY if status in (401, 403) else status)
    whole = json.dumps(said | {"error_code": number, "error_msg": error["message"]}).encode()
    start["status"] = 403 if number == REFUSED_KEY else status
    MutableHeaders(scope=start)["Content-Length"] = str(len(whole))
    await send(start)
    await send({"type": "http.response.body", "body": whole})
