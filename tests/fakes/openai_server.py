"""A tiny server that speaks the OpenAI dialect on loopback, with scripted faults.

    with FakeOpenAI() as server:
        server.chat(Status(429, retry_after=1), Say("Hello", " you"))     # one entry per request, in order
        client = OpenAI(base_url=server.base_url, api_key="x")

Without a script a chat request is answered by `otherwise` (with the last message's text back), and an embeddings
request with `toy_vector` of each text. Every request that came in is in `server.requests`.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar

from tests.fakes.http import QuietHandler


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any


# ---- what may happen to any request ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """Answer with an error status in OpenAI's form."""

    code: int
    message: str = "scripted fault"
    retry_after: float | str | None = None
    """Seconds, or the header's own words."""


@dataclass(frozen=True)
class Hang:
    """Accept the request and send nothing for so many seconds (or until the server stops)."""

    seconds: float = 30.0


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Nonsense:
    """200 and a body that is not JSON."""

    body: bytes = b"<html>It works!</html>"
    content_type: str = "application/json"


# ---- what may happen to a chat request -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Stream these pieces, then the finish reason, the usage (when asked for) and `[DONE]`."""

    pieces: tuple[str, ...]
    finish_reason: str | None = "stop"
    usage: tuple[int, int] | None = (7, 5)
    """Prompt and completion tokens; None for a server that counts nothing."""
    cut_after: int | None = None
    """Break the connection after so many pieces, in the middle of the chunked body."""
    hang_after: int | None = None
    """Go silent after so many pieces."""
    delay: float = 0.0
    """Seconds between pieces."""

    def __init__(self, *pieces: str, **settings: Any) -> None:
        object.__setattr__(self, "pieces", pieces)
        for name in ("finish_reason", "usage", "cut_after", "hang_after", "delay"):
            object.__setattr__(self, name, settings.pop(name, getattr(type(self), name)))
        if settings:
            raise TypeError(f"unknown settings: {', '.join(settings)}")


@dataclass(frozen=True)
class Events:
    """Stream these raw `data:` payloads, nothing added: for servers that break the form."""

    payloads: tuple[str, ...]
    bytes_at_a_time: int | None = None
    """The size of what goes over the wire in one piece, wherever that cuts; None: a payload at a time."""


@dataclass(frozen=True)
class Obey:
    """Answer with what this function makes of the request's body: a model that does what it is told."""

    reply: Callable[[dict[str, Any]], Iterable[str] | Say]


# ---- what may happen to an embeddings request ------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Change the rows before they are sent: each is `{"object", "index", "embedding": [float, …]}`."""

    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def reversed_rows() -> Rows:
    """The right rows in the wrong order; `index` still tells the truth."""
    return Rows(lambda rows: rows[::-1])


def missing_row() -> Rows:
    """The last row is not there."""
    return Rows(lambda rows: rows[:-1])


def doubled_row() -> Rows:
    """The last row takes the index of the first."""
    return Rows(lambda rows: [*rows[:-1], {**rows[-1], "index": 0}])


def wrong_dimension() -> Rows:
    """The last row is one number short."""
    return Rows(lambda rows: [*rows[:-1], {**rows[-1], "embedding": rows[-1]["embedding"][:-1]}])


def not_finite() -> Rows:
    """The last row holds a NaN."""
    return Rows(lambda rows: [*rows[:-1], {**rows[-1], "embedding": [float("nan"), *rows[-1]["embedding"][1:]]}])


def zero_row() -> Rows:
    """The last row is all zeros: it has no direction."""
    return Rows(lambda rows: [*rows[:-1], {**rows[-1], "embedding": [0.0] * len(rows[-1]["embedding"])}])


def toy_vector(text: str, dimension: int) -> list[float]:
    """Entry i is 1 + the number of UTF-8 bytes of `text` that leave the remainder i. Not of unit length."""
    vector = [1.0] * dimension
    for byte in text.encode():
        vector[byte % dimension] += 1.0
    return vector


Step = Status | Hang | Drop | Nonsense | Say | Events | Obey | Rows


@dataclass
class FakeOpenAI:
    """The server; enter it to start it on a free loopback port."""

    dimension: int = 8
    ignore_base64: bool = False
    """Send lists of numbers also to a client that asked for base64, as several servers do."""
    refuse_stream_options: bool = False
    """Answer 400 to a request that carries `stream_options`, as older servers do."""
    otherwise: Obey = Obey(lambda body: (str(body["messages"][-1]["content"]),))
    requests: list[Request] = field(default_factory=list)
    broken_pipes: int = 0
    """How many answers were cut short because the client went away."""
    _chat: deque[Step] = field(default_factory=deque)
    _embeddings: deque[Step] = field(default_factory=deque)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None

    def chat(self, *steps: Step) -> None:
        """What happens to the next chat requests, one step each."""
        self._chat.extend(steps)

    def embeddings(self, *steps: Step) -> None:
        """What happens to the next embeddings requests, one step each."""
        self._embeddings.extend(steps)

    def forget(self) -> None:
        """What of the script has not happened yet will not."""
        self._chat.clear()
        self._embeddings.clear()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`."""
        assert self._server is not None, "enter the server first"
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def table(self, model: str, **more: object) -> dict[str, object]:
        """The settings of an alias whose model this server is, asked once and impatiently."""
        usual = {"window": 4096, "output_limit": 256, "tokenizer": "o200k_base", "retries": 0, "timeout": 5.0}
        return {"provider": "openai", "model": model, "base_url": self.base_url, **usual, **more}

    def paths(self) -> list[str]:
        """The paths of the requests that came in, in order."""
        return [request.path for request in self.requests]

    def __enter__(self) -> FakeOpenAI:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(QuietHandler):
    """One request: record it, take the next step of the script, do it."""

    fake: ClassVar[FakeOpenAI]

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionResetError:
            self.fake.broken_pipes += 1

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.fake.requests.append(Request(self.path, headers, body))
        try:
            if self.path == "/v1/chat/completions":
                self._chat(body)
            elif self.path == "/v1/embeddings":
                self._embeddings(body)
            else:
                self._status(Status(404, f"no such path: {self.path}"))
        except (BrokenPipeError, ConnectionResetError):
            self.fake.broken_pipes += 1
            self.close_connection = True

    def _chat(self, body: dict[str, Any]) -> None:
        if self.fake.refuse_stream_options and "stream_options" in body:
            self._status(Status(400, "unknown field: stream_options"))
            return
        script = self.fake._chat
        step = script.popleft() if script else self.fake.otherwise
        if isinstance(step, Obey):
            reply = step.reply(body)
            step = reply if isinstance(reply, Say) else Say(*reply)
        if isinstance(step, Say) and not body.get("stream"):
            self._json(_completion(body, step))
        elif isinstance(step, Say):
            self._say(body, step)
        elif isinstance(step, Events):
            self._stream(step)
        else:
            self._fault(step)

    def _embeddings(self, body: dict[str, Any]) -> None:
        script = self.fake._embeddings
        step = script.popleft() if script else Rows(lambda rows: rows)
        if not isinstance(step, Rows):
            self._fault(step)
            return
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        dimension = body.get("dimensions") or self.fake.dimension
        rows = step.change([_row(i, toy_vector(text, dimension)) for i, text in enumerate(texts)])
        if body.get("encoding_format") == "base64" and not self.fake.ignore_base64:
            rows = [{**row, "embedding": _base64(row["embedding"])} for row in rows]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._json({"object": "list", "model": body["model"], "data": rows, "usage": usage})

    def _fault(self, step: Step) -> None:
        if isinstance(step, Status):
            self._status(step)
        elif isinstance(step, Hang):
            self.fake._stopping.wait(step.seconds)
            self._break()
        elif isinstance(step, Drop):
            self._break()
        elif isinstance(step, Nonsense):
            self._send(200, step.body, step.content_type)
        else:
            raise TypeError(f"{step!r} does not fit {self.path}")

    def _status(self, step: Status) -> None:
        error = {"message": step.message, "type": "scripted", "param": None, "code": None}
        extra = {} if step.retry_after is None else {"Retry-After": str(step.retry_after)}
        self._send(step.code, json.dumps({"error": error}).encode(), "application/json", extra)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/json")

    def _say(self, body: dict[str, Any], step: Say) -> None:
        self._open_stream()
        self._event(_chunk(body, {"role": "assistant", "content": ""}))
        for i, piece in enumerate(step.pieces):
            if step.cut_after == i:
                self._break()
                return
            if step.hang_after == i:
                self.fake._stopping.wait(30)
            if step.delay:
                time.sleep(step.delay)
            self._event(_chunk(body, {"content": piece}))
        if step.cut_after is not None:
            self._break()
            return
        if step.finish_reason is not None:
            self._event(_chunk(body, {}, step.finish_reason))
        if step.usage is not None and (body.get("stream_options") or {}).get("include_usage"):
            self._event({**_chunk(body, {}), "choices": [], "usage": _usage(step.usage)})
        self._data("[DONE]")
        self._write(b"")

    def _stream(self, step: Events) -> None:
        self._open_stream()
        events = [f"data: {payload}\n\n".encode() for payload in step.payloads]
        if step.bytes_at_a_time is not None:
            whole, size = b"".join(events), step.bytes_at_a_time
            events = [whole[at : at + size] for at in range(0, len(whole), size)]
        for event in events:
            self._write(event)
        self._write(b"")

    def _open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, value: dict[str, Any]) -> None:
        self._data(json.dumps(value))

    def _data(self, payload: str) -> None:
        self._write(f"data: {payload}\n\n".encode())

    def _write(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.flush()


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
    }


def _completion(body: dict[str, Any], step: Say) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(step.pieces)}
    choice = {"index": 0, "message": message, "finish_reason": step.finish_reason}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**answer, "choices": [choice], "usage": _usage(step.usage) if step.usage else None}


def _usage(counts: tuple[int, int]) -> dict[str, int]:
    prompt, completion = counts
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _row(index: int, vector: list[float]) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": vector}


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
