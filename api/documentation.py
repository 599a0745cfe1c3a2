"""`/docs`: the interface's documentation as a page that needs nothing from elsewhere; its script and style come from a
package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PAGE = "/docs"
FILES = "/docs/files"


def serve_page(app: FastAPI) -> None:
    """Add the page to an app."""
    app.mount(FILES, StaticFiles(directory=_static_files()), name="documentation")

    @app.get(PAGE, include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{FILES}/favicon.png",
        )


def _static_files() -> Path:
    """Where the package keeps them; it is not imported, only what lies in it is served."""
    package = find_spec("fastapi_offline")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "static"
