"""`/docs`: the interface's documentation as a page that needs nothing from elsewhere; its script and style come from a
package.

A browser sends no key by itself, and nothing of an installation stands in it: it is there for everybody who reaches the
server. What is tried from the page takes the key that is entered there.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

PAGE = "/docs"
FILES = "/docs/files"
SCHEMA = "/openapi.json"


def serve_page(app: FastAPI) -> None:
    """Add the page, and the schema that it shows, to an app."""
    app.mount(FILES, StaticFiles(directory=_static_files()), name="documentation")

    @cache
    def written() -> bytes:
        return json.dumps(app.openapi()).encode()

    @app.get(SCHEMA, include_in_schema=False)
    def schema() -> Response:
        return Response(written(), media_type="application/json")

    @app.get(PAGE, include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{SCHEMA}",
            title=app.title,
            swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{FILES}/favicon.png",
        )


def shows(path: str) -> bool:
    """Whether a path is the documentation's."""
    return path in (PAGE, SCHEMA) or path.startswith(f"{FILES}/")


def _static_files() -> Path:
    """Where the package keeps them; it is not imported, only what lies in it is served."""
    package = find_spec("fastapi_offline")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "static"
