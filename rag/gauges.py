"""What is so at the moment, for Prometheus: read from the catalog, which all processes share, and from this process."""

from __future__ import annotations

import logging

from indexes.errors import RagError
from rag.backend import Backend
from rag.catalog.gauges import read_stock
from rag.meters import Gauge

log = logging.getLogger(__name__)


def read_gauges(backend: Backend) -> list[Gauge]:
    """All gauges. Where the catalog does not answer, `catalog_readable` says so and its own are missing."""
    lags = backend.views.lags()
    here = [
        Gauge(
            "view_lag_seconds", "For how long a view has been behind the catalog.", None, {"": max(lags, default=0.0)}
        ),
        Gauge("open_views", "Views that are open.", None, {"": len(lags)}),
        *_queues(backend),
    ]
    try:
        return [*here, *_of_catalog(backend), Gauge("catalog_readable", "Whether the catalog answers.", None, {"": 1})]
    except RagError as error:
        log.warning("the catalog's gauges are missing: %s", error)
        return [*here, Gauge("catalog_readable", "Whether the catalog answers.", None, {"": 0})]


def _of_catalog(backend: Backend) -> list[Gauge]:
    with backend.database.read() as connection:
        stock = read_stock(connection)
    return [
        Gauge("documents", "Documents by state; queued ones wait.", "state", stock.documents),
        Gauge("open_batches", "Batches of documents at work.", None, {"": stock.open_batches}),
        Gauge("generations", "Generations by state.", "state", stock.generations),
        Gauge("generation_lag_changes", "The most changes that a generation lacks.", "state", stock.generation_lag),
        Gauge("drift_alarms", "Alarms of drift that stand.", "watch", stock.drift_alarms),
    ]


def _queues(backend: Backend) -> list[Gauge]:
    queues = backend.models.queues()
    return [
        Gauge("model_requests", "Answers that a model is making.", "model", {n: q.busy for n, q in queues.items()}),
        Gauge("model_waiting", "Requests that wait for a model.", "model", {n: q.waiting for n, q in queues.items()}),
    ]
