"""Metrics for Prometheus."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from api.dependencies import OpenBackend, new_router, requires
from api.middleware import METRICS_PATH
from indexes.errors import ChangeRequest
from rag.gauges import read_gauges
from rag.meters import CONTENT_TYPE

router = new_router(tags=["health"])


@router.get(METRICS_PATH, response_class=PlainTextResponse, dependencies=[requires("admin")])
def metrics(backend: OpenBackend) -> Response:
    """What this process counts, and what the whole installation holds, as Prometheus reads it.

    It is of all tenants: for the operator, and for administrators of the operator's own tenant.
    """
    if backend.caller.tenant != backend.settings.tenant:
        raise ChangeRequest("Metrics are of all tenants: they are the operator's.", code="insufficient_scope")
    return Response(backend.meters.render(read_gauges(backend)), media_type=CONTENT_TYPE)
