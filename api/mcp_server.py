"""The tools over the Model Context Protocol: at `/mcp` of a server, and over stdin and stdout.

The one over stdin and stdout passes every call on to the `/mcp` of a server, so the tools exist once. No session is
kept: each request at `/mcp` carries its own key, and its tools see what that key may see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib.metadata import version
from typing import Any

import anyio.to_thread
import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import LONGEST_MESSAGE, as_rag_error
from api.mcp_tools import TOOLS
from api.middleware import JSON_BYTES
from indexes.errors import ChangeRequest, RagError, TryLater
from rag.backend import Backend

INSTRUCTIONS = (
    "Documents to answer from. `search` finds passages, `fetch` reads the document that one stands in, `context` "
    "gives the passages that fit a window of tokens. Cite what you use by its title and URL."
)
CALL_SECONDS = 600.0
"""That a call which is passed on may take."""


class Door:
    """The tools at one path of an app that holds a backend open."""

    def __init__(self) -> None:
        server = _server(_list_tools, _call_tool)
        self._sessions = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=JSON_BYTES
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        """To be held while requests are answered; once."""
        return self._sessions.run()

    def answer(self, request: Request, backend: Backend) -> Response:
        """What answers a request, over what this backend's caller may see."""
        request.state.mcp_backend = backend
        return _Answer(self._sessions)


class _Answer(Response):
    """Leaves a request to the protocol's own application."""

    def __init__(self, sessions: StreamableHTTPSessionManager) -> None:
        super().__init__()
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._sessions.handle_request(scope, receive, send)


async def _list_tools(
    _context: ServerRequestContext[Any, Request], _asked: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    return types.ListToolsResult(
        tools=[
            types.Tool(
                name=tool.name,
                title=tool.title,
                description=" ".join((tool.arguments.__doc__ or "").split()),
                input_schema=tool.arguments.model_json_schema(),
                output_schema=tool.results.model_json_schema(),
                annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
            )
            for tool in TOOLS.values()
        ]
    )


async def _call_tool(
    context: ServerRequestContext[Any, Request], asked: types.CallToolRequestParams
) -> types.CallToolResult:
    assert context.request is not None
    backend: Backend = context.request.state.mcp_backend
    try:
        found = await anyio.to_thread.run_sync(
            _run, backend, str(context.request.base_url), asked.name, asked.arguments or {}
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the model is told in a sentence
        return _failed(as_rag_error(error))
    text = json.dumps(found, ensure_ascii=False)
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content=found)


def _run(backend: Backend, base_url: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    tool = TOOLS.get(name)
    if tool is None:
        raise ChangeRequest(f"There is no tool {name!r}. Known: {', '.join(TOOLS)}.", code="unknown_tool")
    try:
        asked = tool.arguments.model_validate(arguments)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "arguments"
        raise ChangeRequest(f"{where!r} is not valid: {fault['msg']}.", code="invalid_value", param=where) from error
    return tool.run(backend, base_url, asked).model_dump(mode="json")


def _failed(error: RagError) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=error.message[:LONGEST_MESSAGE])], is_error=True
    )


async def bridge(url: str, http: httpx2.AsyncClient) -> None:
    """Serve on stdin and stdout, until stdin ends, what the server at this address serves at `/mcp`.

    Raises TryLater (`server_unreachable`) when it does not answer there at the start.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(http)
        there = Client(
            streamable_http_client(f"{url}/mcp", http_client=http), read_timeout_seconds=CALL_SECONDS, cache=None
        )
        try:
            await stack.enter_async_context(there)
        except Exception as error:  # several kinds, and groups of them
            raise TryLater(
                f"There are no tools at {url}/mcp. Is the server running, its setting `server.mcp` on, and the key "
                "right?",
                code="server_unreachable",
            ) from error

        async def list_tools(_context: ServerRequestContext[Any], _asked: Any) -> types.ListToolsResult:
            return await there.list_tools()

        async def call_tool(
            _context: ServerRequestContext[Any], asked: types.CallToolRequestParams
        ) -> types.CallToolResult:
            try:
                return await there.call_tool(asked.name, asked.arguments)
            except MCPError as error:
                return _failed(TryLater(f"The server did not answer: {error}. Try again."))

        server = _server(list_tools, call_tool)
        reading, writing = await stack.enter_async_context(stdio_server())
        await server.run(reading, writing, server.create_initialization_options())


def _server(list_tools: Any, call_tool: Any) -> Server[Any]:
    return Server(
        "rag", version=version("rag"), instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )
