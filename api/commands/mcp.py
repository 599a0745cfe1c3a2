"""`rag mcp`: the tools of the Model Context Protocol over stdin and stdout."""

from __future__ import annotations

from functools import partial

import anyio

from api.client import LOCAL, TIMEOUT, authorization, base_of, local_server
from api.commands.call import Call, settings_of
from api.extras import extra
from rag.settings import secret


def run(call: Call) -> None:
    """Serve the tools of the server that the call names, else of one in this process, until stdin ends."""
    with extra("mcp"):
        import httpx2

        from api.mcp_server import bridge

    settings = settings_of(call, {"server.mcp": True})
    client = partial(httpx2.AsyncClient, headers=authorization(secret(settings.server.api_key)), timeout=TIMEOUT.read)
    if call.url is not None:
        anyio.run(bridge, base_of(call.url), client())
        return
    with local_server(settings, jobs=False) as path:
        anyio.run(bridge, LOCAL, client(transport=httpx2.AsyncHTTPTransport(uds=str(path))))
