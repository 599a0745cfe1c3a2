"""A small server that speaks Qdrant's REST dialect on loopback, with scripted faults; local mode does what is asked, or
the server's own engine (`FakeQdrant(engine=EdgeClient(folder))`).

    with FakeQdrant(api_key="secret") as server:
        server.script(Status(503), Drop(), Lost())     # what happens to the next requests, in order
        connection = QdrantConnection(QdrantPlace(server.url, "secret"))

Every request that came in is in `server.requests`.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.fakes.http import QuietHandler
from tests.fakes.openai_server import Drop, Hang, Nonsense, Request, Status

JSON = "application/json"


@dataclass(frozen=True)
class Lost:
    """Do what is asked and close the connection without an answer."""


@dataclass(frozen=True)
class Pass:
    """Do what is asked."""


Step = Status | Hang | Drop | Nonsense | Lost | Pass


class _Missing(Exception):
    """What is asked for does not exist."""


@dataclass
class FakeQdrant:
    """The server; enter it to start it on a free loopback port."""

    version: str = "1.19.2"
    api_key: str | None = None
    short_unless_exact: int = 0
    """Leave out so many hits of a dense search that is not exact, as a graph may under a filter."""
    engine: Any = None
    """What of `QdrantClient` does what is asked; None for local mode in memory."""
    before: Callable[[str], None] = lambda _: None
    """Called with a request's method and path before it is served, to hold it or to let something happen meanwhile."""
    requests: list[Request] | deque[Request] = field(default_factory=list)
    _steps: deque[Step] = field(default_factory=deque)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _indexes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def script(self, *steps: Step) -> None:
        """What happens to the next requests, one step each; afterwards all are served."""
        self._steps.extend(steps)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def calls(self) -> list[str]:
        """Method and last part of the path of each request that came in, in order."""
        return [request.path for request in self.requests]

    def __enter__(self) -> FakeQdrant:
        from qdrant_client import QdrantClient

        self._local = self.engine is None
        if self._local:
            self.engine = QdrantClient(":memory:")
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self.engine.close()

    def quiet(self) -> AbstractContextManager[Any]:
        """No request is served meanwhile: local mode fails whoever reads while another writes."""
        return self._turn

    def serve(self, method: str, path: str, body: Any) -> Any:
        """The result of one request. Raises _Missing, and ValueError as the engine does."""
        with self._turn:
            for pattern, verb, function in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and verb == method:
                    name = found.groupdict().get("name", "")
                    if name and function not in (_create, _exists, _drop) and not self.engine.collection_exists(name):
                        raise _Missing(f"Not found: Collection `{name}` doesn't exist!")
                    return function(self, name, body)
        raise _Missing(f"no such path: {method} {path}")


def _exists(fake: FakeQdrant, name: str, body: Any) -> Any:
    return {"exists": fake.engine.collection_exists(name)}


def _create(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    asked = models.CreateCollection(**body)
    fake._indexes[name] = {}
    return fake.engine.create_collection(
        name,
        vectors_config=asked.vectors,
        sparse_vectors_config=asked.sparse_vectors,
        hnsw_config=asked.hnsw_config,
        quantization_config=asked.quantization_config,
        metadata=asked.metadata,
    )


def _drop(fake: FakeQdrant, name: str, body: Any) -> Any:
    return fake.engine.delete_collection(name)


def _info(fake: FakeQdrant, name: str, body: Any) -> Any:
    schema = {key: {"data_type": value["type"], "points": 0} for key, value in fake._indexes[name].items()}
    return {**_json(fake.engine.get_collection(name)), "payload_schema": schema}


def _index(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    fake._indexes[name][body["field_name"]] = body["field_schema"]
    if fake._local:  # which has none, and says so with a warning
        return _DONE
    return _json(fake.engine.create_payload_index(name, **dict(models.CreateFieldIndex(**body))))


def _upsert(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    return _json(fake.engine.upsert(name, [models.PointStruct(**point) for point in body["points"]]))


def _delete(fake: FakeQdrant, name: str, body: Any) -> Any:
    return _json(fake.engine.delete(name, _selector(body)))


def _set_payload(fake: FakeQdrant, name: str, body: Any) -> Any:
    return _json(fake.engine.set_payload(name, body["payload"], _selector(body)))


def _query(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    answers = []
    for search in map(dict, body["searches"]):
        params = search.pop("params", None) or {}
        if search["using"] == "dense" and not params.get("exact"):
            search["limit"] -= fake.short_unless_exact
        if fake._local:  # which warns of what it ignores
            params = {name: value for name, value in params.items() if name == "idf"}
        request = models.QueryRequest(**search, params=params or None)
        answers += fake.engine.query_batch_points(name, [request])
    return [_json(answer) for answer in answers]


def _scroll(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    asked = models.ScrollRequest(**body)
    points, place = fake.engine.scroll(
        name, scroll_filter=asked.filter, limit=asked.limit, offset=asked.offset, with_payload=asked.with_payload
    )
    return {"points": [_json(point) for point in points], "next_page_offset": place}


def _count(fake: FakeQdrant, name: str, body: Any) -> Any:
    from qdrant_client import models

    return _json(fake.engine.count(name, count_filter=models.Filter(**body["filter"]), exact=body["exact"]))


def _facet(fake: FakeQdrant, name: str, body: Any) -> Any:
    return _json(fake.engine.facet(name, key=body["key"], limit=body["limit"], exact=body["exact"]))


def _selector(body: Any) -> Any:
    from qdrant_client import models

    if body.get("points") is not None:
        return models.PointIdsList(points=body["points"])
    return models.FilterSelector(filter=models.Filter(**body["filter"]))


def _json(model: Any) -> Any:
    return json.loads(model.model_dump_json(exclude_none=True))


_DONE = {"operation_id": 1, "status": "completed"}
_COLLECTION = "/collections/(?P<name>[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[[FakeQdrant, str, Any], Any]], ...] = (
    (f"{_COLLECTION}/exists", "GET", _exists),
    (_COLLECTION, "PUT", _create),
    (_COLLECTION, "DELETE", _drop),
    (_COLLECTION, "GET", _info),
    (f"{_COLLECTION}/index", "PUT", _index),
    (f"{_COLLECTION}/points", "PUT", _upsert),
    (f"{_COLLECTION}/points/delete", "POST", _delete),
    (f"{_COLLECTION}/points/payload", "POST", _set_payload),
    (f"{_COLLECTION}/points/query/batch", "POST", _query),
    (f"{_COLLECTION}/points/scroll", "POST", _scroll),
    (f"{_COLLECTION}/points/count", "POST", _count),
    (f"{_COLLECTION}/facet", "POST", _facet),
)


class _Handler(QuietHandler):
    """One request: record it, take the next step of the script, do it."""

    fake: ClassVar[FakeQdrant]
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._handle()

    do_PUT = do_POST = do_DELETE = do_GET

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = urlsplit(self.path).path
        body = json.loads(raw) if raw else None
        self.fake.requests.append(Request(f"{self.command} {self.path}", headers, body))
        self.fake.before(f"{self.command} {path}")
        step = self.fake._steps.popleft() if self.fake._steps else Pass()
        if isinstance(step, Hang):
            self.fake._stopping.wait(step.seconds)
        if isinstance(step, Status):
            self._refuse(
                step.code, step.message, {} if step.retry_after is None else {"Retry-After": f"{step.retry_after:g}"}
            )
        elif isinstance(step, Nonsense):
            self._send(200, step.body, JSON)
        elif isinstance(step, Hang | Drop):
            self._break()
        elif self.fake.api_key is not None and headers.get("api-key") != self.fake.api_key:
            self._send(401, b"Must provide an API key or an Authorization bearer token", JSON)
        else:
            self._serve(path, body, answering=not isinstance(step, Lost))

    def _serve(self, path: str, body: Any, answering: bool) -> None:
        if path == "/":
            told = {"title": "qdrant - vector search engine", "version": self.fake.version}
            self._send(200, json.dumps(told).encode(), JSON)
            return
        try:
            result = self.fake.serve(self.command, path, body)
        except _Missing as error:
            self._refuse(404, str(error))
            return
        except ValueError as error:
            self._refuse(409 if "already exists" in str(error) else 400, f"Wrong input: {error}")
            return
        if answering:
            self._send(200, json.dumps({"result": result, "status": "ok", "time": 0.001}).encode(), JSON)
        else:
            self._break()

    def _refuse(self, code: int, words: str, extra: Mapping[str, str] | None = None) -> None:
        self._send(code, json.dumps({"status": {"error": words}, "time": 0.0}).encode(), JSON, extra)
