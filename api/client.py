"""A client of the API, and a server of one's own to speak to where there is no other.

Every command is a client. Against `--url` it speaks to that server; without, the same app runs in this process on a
Unix domain socket that nobody else can open, over the data folder. So there is one code path for both.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater
from rag.settings import Settings, secret

LOCAL = "http://localhost"
"""What a server at a socket is called."""
PAGE = 100
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
"""Seconds; an answer may wait for a model that is being loaded."""
_LONGEST_SOCKET_PATH = 90
"""Of the 107 bytes that the system allows; the socket's own name is in it."""

Json = dict[str, Any]


class Client:
    """The routes as methods: JSON in, JSON out.

    Every method raises the family of error that the server's answer belongs to, with the server's own message;
    TryLater (`server_unreachable`) when there is no answer, and RagError for a fault of the server.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def status(self) -> Json:
        """What the server is and how much work waits."""
        return self._call("GET", "/v1/status")

    def models(self) -> list[Json]:
        """The language models that answer."""
        found: list[Json] = self._call("GET", "/v1/models")["data"]
        return [model for model in found if model["kind"] == "language_model"]

    # Stores

    def stores(self) -> Iterator[Json]:
        """Every vector store, oldest first."""
        return self._pages("/v1/vector_stores", {})

    def store(self, name: str) -> Json:
        """A store by id or unique name."""
        return self._call("GET", f"/v1/vector_stores/{_segment(name)}")

    def create_store(self, name: str, embedder: str | None = None, *, only_if_absent: bool = False) -> Json:
        """A new empty store; with `only_if_absent`, the store of this name or id if there is one."""
        if not name.strip():
            raise ChangeRequest("A store needs a name that is not empty.", code="invalid_value", param="name")
        body: Json = {"name": name} | ({"embedder": embedder} if embedder else {})
        if only_if_absent:
            body["only_if_absent"] = True
        return self._call("POST", "/v1/vector_stores", json=body)

    def delete_store(self, name: str) -> Json:
        """Forget a store with its documents."""
        return self._call("DELETE", f"/v1/vector_stores/{_segment(name)}")

    def folders(self, store: str) -> list[Json]:
        """The folders that were synced into a store: `prefix`, `host`, `path`."""
        found: list[Json] = self._call("GET", f"/v1/vector_stores/{_segment(store)}/folders")["data"]
        return found

    def remember_folder(self, store: str, prefix: str, path: str, *, replace: bool) -> Json:
        """Say that the documents below a prefix come from a folder of this machine."""
        body = {"prefix": prefix, "host": socket.gethostname(), "path": path, "replace": replace}
        return self._call("PUT", f"/v1/vector_stores/{_segment(store)}/folders", json=body)

    # Files

    def files(self, store: str, status: str | None = None, after: str | None = None) -> Iterator[Json]:
        """The files of a store, oldest first; those of one `status`, those after a file id."""
        return self._pages(_files_of(store), {"filter": status} if status else {}, after)

    def file(self, store: str, file_id: str) -> Json:
        """One file of a store."""
        return self._call("GET", f"{_files_of(store)}/{_segment(file_id)}")

    def put_file(
        self, store: str, filename: str, data: BinaryIO, source: str, permissions: Sequence[str] | None = None
    ) -> Json:
        """Upload a file and put it into a store as the document `source`, which it replaces if there is one; with
        these permission tags, or those that are there."""
        uploaded = self._call("POST", "/v1/files", data={"purpose": "assistants"}, files={"file": (filename, data)})
        body: Json = {"file_id": uploaded["id"], "source": source, "owned": True}
        if permissions is not None:
            body["permissions"] = list(permissions)
        return self._call("POST", _files_of(store), json=body)

    def set_permissions(self, store: str, file_id: str, permissions: Sequence[str]) -> Json:
        """Give a file of a store these permission tags instead of those that it has."""
        return self._call("POST", f"{_files_of(store)}/{_segment(file_id)}", json={"permissions": list(permissions)})

    def delete_file(self, store: str, file_id: str) -> Json:
        """Take a file out of a store."""
        return self._call("DELETE", f"{_files_of(store)}/{_segment(file_id)}")

    def retry(self, store: str, file_id: str) -> Json:
        """Queue a failed or cancelled file again."""
        return self._call("POST", f"{_files_of(store)}/{_segment(file_id)}/retry")

    def cancel(self, store: str, file_id: str) -> Json:
        """Stop work on a file."""
        return self._call("POST", f"{_files_of(store)}/{_segment(file_id)}/cancel")

    # Generations

    def generations(self, store: str) -> list[Json]:
        """Every generation of a store, oldest first."""
        found: list[Json] = self._call("GET", _generations_of(store))["data"]
        return found

    def generation(self, store: str, generation: str) -> Json:
        """One generation."""
        return self._call("GET", _generations_of(store, generation))

    def create_generation(self, store: str, body: Json) -> Json:
        """A generation that is built from now on."""
        return self._call("POST", _generations_of(store), json=body)

    def promote_generation(self, store: str, generation: str, body: Json) -> Json:
        """Let a generation answer."""
        return self._call("POST", _generations_of(store, generation, "promote"), json=body)

    def roll_back(self, store: str, body: Json) -> Json:
        """Let the generation answer again that was live last."""
        return self._call("POST", f"/v1/vector_stores/{_segment(store)}/rollback", json=body)

    def mirror_generation(self, store: str, generation: str, share: float) -> Json:
        """Ask a generation a share of the questions too."""
        return self._call("POST", _generations_of(store, generation, "mirror"), json={"share": share})

    def change_generation(self, store: str, generation: str, what: str) -> Json:
        """`pause`, `resume` or `retire` a generation."""
        return self._call("POST", _generations_of(store, generation, what))

    # A/B tests

    def ab_tests(self) -> Iterator[Json]:
        """Every A/B test, oldest first."""
        return self._pages("/v1/ab_tests", {})

    def create_ab_test(self, body: Json) -> Json:
        """Begin an A/B test."""
        return self._call("POST", "/v1/ab_tests", json=body)

    def ab_test_report(self, test: str) -> Json:
        """What an A/B test has come to."""
        return self._call("GET", f"/v1/ab_tests/{_segment(test)}/report")

    def end_ab_test(self, test: str) -> Json:
        """Let nobody take part in an A/B test any more."""
        return self._call("POST", f"/v1/ab_tests/{_segment(test)}/end")

    def delete_ab_test(self, test: str) -> Json:
        """Forget an A/B test."""
        return self._call("DELETE", f"/v1/ab_tests/{_segment(test)}")

    # Keys

    def create_key(self, body: Json) -> Json:
        """A new key, with its `secret`."""
        return self._call("POST", "/v1/keys", json=body)

    def keys(self) -> Iterator[Json]:
        """Every key that may be managed, oldest first."""
        return self._pages("/v1/keys", {})

    def revoke_key(self, key_id: str) -> Json:
        """Let a key be good for nothing."""
        return self._call("DELETE", f"/v1/keys/{_segment(key_id)}")

    # Evaluation

    def question_sets(self) -> Iterator[Json]:
        """Every version of every question set, oldest first."""
        return self._pages("/v1/question_sets", {})

    def create_question_set(self, name: str, lines: bytes, dev_share: float) -> Json:
        """A question set out of JSON lines, or the next version of the one of this name."""
        query = {"name": name, "dev_share": str(dev_share)}
        headers = {"Content-Type": "application/jsonl"}
        return self._call("POST", "/v1/question_sets", params=query, content=lines, headers=headers)

    def question_set_lines(self, name: str) -> str:
        """A question set as JSON lines."""
        with reachable():
            answer = self._http.get(f"/v1/question_sets/{_segment(name)}/export")
            if answer.is_error:
                raise _error(answer)
            return answer.text

    def feedback_questions(self, store: str) -> Json:
        """Candidates for a question set out of feedback."""
        return self._call("GET", f"/v1/vector_stores/{_segment(store)}/feedback_questions")

    def drift(self, store: str, *, today: bool) -> Json:
        """What the days of a store came to, or today so far."""
        return self._call("POST" if today else "GET", f"/v1/vector_stores/{_segment(store)}/drift")

    def set_canaries(self, store: str, question_set: str | None) -> Json:
        """Let the questions of a set, or none, be asked again each day."""
        body = {"question_set": question_set}
        return self._call("PUT", f"/v1/vector_stores/{_segment(store)}/drift/canaries", json=body)

    def create_evaluation(self, body: Json) -> Json:
        """Queue an evaluation."""
        return self._call("POST", "/v1/evaluations", json=body)

    def evaluation(self, evaluation_id: str) -> Json:
        """An evaluation as it stands."""
        return self._call("GET", f"/v1/evaluations/{_segment(evaluation_id)}")

    # Questions

    def search(self, store: str, body: Json) -> Json:
        """The best hits of a store."""
        return self._call("POST", search_path(store), json=body)

    def context(self, store: str, body: Json) -> Json:
        """The packed context of a question, its prompt and its ledger."""
        return self._call("POST", f"/v1/vector_stores/{_segment(store)}/context", json=body)

    def chat(self, body: Json) -> Iterator[Json]:
        """The chunks of a streamed chat completion."""
        with reachable(), self._http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            for line in answer.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise _family(500, event["error"])
                    yield event

    def _call(self, method: str, path: str, **arguments: Any) -> Json:
        with reachable():
            return answer_of(self._http.request(method, path, **arguments))

    def _pages(self, path: str, query: Mapping[str, str], after: str | None = None) -> Iterator[Json]:
        cursor = {"after": after} if after else {}
        while True:
            page = self._call("GET", path, params={"order": "asc", "limit": PAGE, **query, **cursor})
            yield from page["data"]
            if not page["has_more"]:
                return
            cursor = {"after": page["last_id"]}


@contextmanager
def remote_client(url: str, key: str | None) -> Iterator[Client]:
    """A client of the server at this address. Raises ChangeRequest (`bad_url`) for what is no address."""
    try:
        http = httpx.Client(base_url=base_of(url), headers=authorization(key), timeout=TIMEOUT)
    except httpx.InvalidURL as error:
        raise ChangeRequest(f"{url!r} is not an address: {error}.", code="bad_url") from error
    with http:
        yield Client(http)


@contextmanager
def local_client(settings: Settings, *, jobs: bool) -> Iterator[Client]:
    """A client of a server in this process over the settings' data folder.

    With `jobs` it also works off the queue, unless another process of the folder does. Raises what opening the
    folder raises.
    """
    key = secret(settings.server.api_key)
    with local_server(settings, jobs=jobs) as path:
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(base_url=LOCAL, transport=transport, headers=authorization(key), timeout=TIMEOUT) as http:
            yield Client(http)


@contextmanager
def local_server(settings: Settings, *, jobs: bool) -> Iterator[Path]:
    """A server in this process, at a socket that nobody else can open; its path. A key that was made here counts for
    what it is, not for the operator's own."""
    from api.server import serving
    from rag.keys import is_made

    if is_made(secret(settings.server.api_key)):
        settings = settings.model_copy(update={"server": settings.server.model_copy(update={"api_key": None})})
    with _socket_folder() as folder, serving(settings, folder / "api.sock", jobs=jobs):
        yield folder / "api.sock"


def base_of(url: str) -> str:
    """A server's address without what clients of OpenAI add. Raises ChangeRequest (`bad_url`) for what is none."""
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise ChangeRequest(f"{url!r} is not an address: it begins with http:// or https://.", code="bad_url")
    return base


def authorization(key: str | None) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def _socket_folder() -> Iterator[Path]:
    """A new folder that only this user can enter (mode 0700), short enough for the path of a socket."""
    usual = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(
        prefix="rag-",
        dir=usual if len(usual) < _LONGEST_SOCKET_PATH - 20 else "/tmp",  # noqa: S108
    ) as folder:
        yield Path(folder)


@contextmanager
def reachable() -> Iterator[None]:
    """Turns a failed connection into TryLater (`server_unreachable`)."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TryLater("The server did not answer in time. Try again.", code="server_unreachable") from error
    except httpx.TransportError as error:
        raise TryLater(
            f"There is no answer from the server ({error}). Is it running, and the address right?",
            code="server_unreachable",
        ) from error


def answer_of(response: httpx.Response) -> Json:
    """The object that the server answered with. Raises what it says went wrong."""
    if response.is_error:
        raise _error(response)
    try:
        found = response.json()
    except ValueError as error:
        raise _not_ours(response) from error
    if not isinstance(found, dict):
        raise _not_ours(response)
    return found


def _error(answer: httpx.Response) -> RagError:
    try:
        error = answer.json()["error"]
        return _family(answer.status_code, error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _not_ours(answer)


def _family(status: int, error: Mapping[str, Any]) -> RagError:
    message, code, param = str(error["message"]), error.get("code"), error.get("param")
    if status in (429, 502, 503, 504):
        return TryLater(message, code=code, param=param)
    if status == 404:
        return NotThere(message, code=code, param=param)
    return (RagError if status >= 500 else ChangeRequest)(message, code=code, param=param)


def _not_ours(answer: httpx.Response) -> RagError:
    return ChangeRequest(
        f"{answer.request.url} answered {answer.status_code}, but not as this API does. Is the address right?",
        code="not_this_api",
    )


def search_path(store: str) -> str:
    """Where a store, by id or name, is searched."""
    return f"/v1/vector_stores/{_segment(store)}/search"


def _files_of(store: str) -> str:
    return f"/v1/vector_stores/{_segment(store)}/files"


def _generations_of(store: str, *parts: str) -> str:
    return "/".join([f"/v1/vector_stores/{_segment(store)}/generations", *map(_segment, parts)])


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")
