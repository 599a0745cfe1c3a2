"""What routes are given: the open backend, and the store that a path names."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from api.errors import Refused
from api.strict_json import LARGE, parse_json
from indexes.errors import ChangeRequest
from rag.access import Caller, Scope
from rag.backend import Backend
from rag.catalog.records import Store


class Requires(HTTPBearer):
    """Lets a caller use a route who has one of these scopes; an administrator has all.

    Every route but health declares one. That there is a caller, the middleware has seen to.
    """

    def __init__(self, *scopes: Scope) -> None:
        super().__init__(scheme_name="key", description="An API key.", auto_error=False)
        self.scopes = frozenset(scopes)

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        caller: Caller = request.state.caller
        if not caller.scopes & self.scopes:
            raise ChangeRequest(
                f"This key may not do that: it takes one of the scope {' or '.join(sorted(self.scopes))}.",
                code="insufficient_scope",
            )


def requires(*scopes: Scope) -> Any:
    """A dependency of a route: its callers need one of these scopes, or `admin`."""
    return Depends(Requires(*scopes, "admin"))


async def get_backend(request: Request) -> Backend:
    """The backend that the app holds open, for whoever asks."""
    backend: Backend = request.app.state.backend
    return backend.for_caller(request.state.caller)


def get_store(vector_store_id: str, backend: Annotated[Backend, Depends(get_backend)]) -> Store:
    """The store that the path names, by id or by unique name. Raises NotThere."""
    return backend.find_store(vector_store_id)


OpenBackend = Annotated[Backend, Depends(get_backend)]
NamedStore = Annotated[Store, Depends(get_store)]


class StrictRequest(Request):
    """A request whose JSON is read strictly, large ones away from the event loop."""

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            body = await self.body()
            if len(body) > LARGE:
                self._parsed = await anyio.to_thread.run_sync(_parse, body)
            else:
                self._parsed = _parse(body)
        return self._parsed


class StrictRoute(APIRoute):
    """A route whose handler gets a `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def new_router(*, tags: list[str]) -> APIRouter:
    """A router whose routes read JSON strictly."""
    return APIRouter(route_class=StrictRoute, tags=list(tags))


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ChangeRequest as error:
        raise Refused(error) from error
