"""The Model Context Protocol: tools for models, for the key that a request carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import Response

from api.dependencies import OpenBackend, new_router, requires
from api.extras import extra

if TYPE_CHECKING:
    from api.mcp_server import Door

router = new_router(tags=["mcp"])


@router.post("/mcp", include_in_schema=False, dependencies=[requires("query")])
async def mcp(request: Request, backend: OpenBackend) -> Response:
    """One message of the protocol; its shapes are the protocol's own."""
    answer: Response = request.app.state.mcp.answer(request, backend)
    return answer


def new_door() -> Door:
    """What answers here, to be held while the app runs. Raises Unsupported where its package is not installed."""
    with extra("mcp"):
        from api.mcp_server import Door
    return Door()
