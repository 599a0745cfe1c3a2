"""What this server adds to a model's stream, and how many streams it holds.

    python -m tests.benchmarks.streaming [--streams 50] [--rate 50] [--seconds 20] [--door chat|responses]

Three processes: a scripted model on loopback that says a word every 1/rate seconds, the server (uvicorn, one process,
toy embedder), and this one, which asks. Every word carries the time at which the model sent it (CLOCK_MONOTONIC, which
processes of a machine share), so each delay is measured by itself, from the model's socket to the caller's:

    added    of the first word, asked one at a time
    delay    of every word, with all streams at once
    stall    the longest silence within a stream

The model's own pauses are printed beside: what it did not say in time is not this server's doing. So is the share of
a core that each process took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import Any

import numpy as np

TEXT = "Charge the lamp for two hours. A full battery lasts nine evenings."
QUESTION = "How long must I charge the lamp?"
STAMP = "t"


@dataclass
class Heard:
    """One stream: when each word was sent and heard, in seconds."""

    sent: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)

    def delays(self) -> np.ndarray:
        return np.array(self.heard) - np.array(self.sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0, help="words per second of each stream")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--door", choices=("chat", "responses"), default="chat")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), chosen.rate, chosen.seconds) as places:
        asyncio.run(measure(places, chosen))


async def measure(places: Places, chosen: argparse.Namespace) -> None:
    """Ask, listen and print."""

    async def ask(words: int) -> Heard:
        return await one_stream(places.server_port, chosen.door, words)

    for _ in range(5):
        await ask(5)
    firsts = [float((await ask(3)).delays()[0]) * 1000 for _ in range(100)]
    print(f"door {chosen.door}; added to the first word, ms: {spread(firsts)} (n {len(firsts)})")
    before, began = cpu_of(places), time.monotonic()
    words = int(chosen.rate * chosen.seconds)
    heard = await asyncio.gather(*[ask(words) for _ in range(chosen.streams)])
    spent = time.monotonic() - began
    delays = np.concatenate([stream.delays() for stream in heard]) * 1000
    stalls = [float(np.diff(stream.heard).max()) * 1000 for stream in heard]
    pauses = [float(np.diff(stream.sent).max()) * 1000 for stream in heard]
    print(f"{chosen.streams} streams of {words} words in {spent:.1f} s ({len(delays) / spent:.0f} words/s)")
    print(f"  delay of a word, ms: {spread(delays.tolist())}")
    print(f"  longest silence within a stream, ms: {max(stalls):.0f} (of the model itself: {max(pauses):.0f})")
    after = cpu_of(places)
    shares = (f"{name} {(after[name] - before[name]) / spent:.2f}" for name in after)
    print(f"  cores taken: {', '.join(shares)} of {os.cpu_count()}")


def spread(values: Sequence[float]) -> str:
    """Median, 95th and 99th percentile, maximum."""
    p95, p99 = np.percentile(values, [95, 99])
    return f"p50 {statistics.median(values):.2f}, p95 {p95:.2f}, p99 {p99:.2f}, max {max(values):.2f}"


# ---- the one who asks ------------------------------------------------------------------------------------------------


async def one_stream(port: int, door: str, words: int) -> Heard:
    """Ask over a connection of its own and note every word."""
    path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": f"{QUESTION} {words}"}]}
    if door == "responses":
        path, body = "/v1/responses", {"input": f"{QUESTION} {words}", "store": False}
    data = json.dumps({**body, "model": "scripted", "stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + data)
    heard = Heard()
    async for line in reader:
        if line.startswith(b"data: {"):
            note(heard, line, time.monotonic())
    writer.close()
    assert len(heard.sent) == words, f"{len(heard.sent)} of {words} words came"
    return heard


def note(heard: Heard, line: bytes, now: float) -> None:
    event = json.loads(line.removeprefix(b"data: "))
    text = event.get("delta") if "type" in event else event["choices"][0]["delta"].get("content")
    if not isinstance(text, str):
        return
    for word in text.split():
        heard.sent.append(int(word.removeprefix(STAMP)) / 1e6)
        heard.heard.append(now)


# ---- the other processes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where the server answers, and the processes by what they are."""

    server_port: int
    pids: dict[str, int]


@contextmanager
def running(folder: Path, rate: float, seconds: float) -> Iterator[Places]:
    """The model and the server in processes of their own, with a store of one document."""
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    model_port, server_port = free_port(), free_port()
    model = spawn.Process(target=run_model, args=(model_port, rate), daemon=True)
    server = spawn.Process(target=run_server, args=(folder, model_port, server_port, seconds, stop))
    for process in (model, server):
        process.start()
    try:
        fill(server_port)
        pids = {"server": server.pid or 0, "model": model.pid or 0, "caller": os.getpid()}
        yield Places(server_port, pids)
    finally:
        stop.set()
        server.join(20)
        model.kill()


def run_model(port: int, rate: float) -> None:
    """A model that says how many words it is asked for, each with the time it is sent."""
    asyncio.run(_serve_model(port, rate))


async def _serve_model(port: int, rate: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(length))
            question = asked["messages"][-1]["content"]
            await _speak(writer, int(question.rsplit(QUESTION, 1)[1].split()[0]), rate)
        writer.close()

    await (await asyncio.start_server(answer, "127.0.0.1", port)).serve_forever()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _speak(writer: asyncio.StreamWriter, words: int, rate: float) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    start = time.monotonic() + 0.02
    for number in range(words):
        await asyncio.sleep(start + number / rate - time.monotonic())
        _write(writer, {"content": f" {STAMP}{int(time.monotonic() * 1e6)}"}, None)
        await writer.drain()
    _write(writer, {}, "stop")
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


def _write(writer: asyncio.StreamWriter, delta: dict[str, Any], finish: str | None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data = f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def run_server(folder: Path, model_port: int, port: int, seconds: float, stop: ProcessEvent) -> None:
    """The server as `rag serve` runs it, with a store and a model of this benchmark."""
    import threading

    from api.server import Server
    from rag.settings import Settings

    alias = {
        "provider": "openai",
        "model": "m",
        "base_url": f"http://127.0.0.1:{model_port}/v1",
        "window": 64_000,
        "output_limit": 32_000,
        "tokenizer": "o200k_base",
        "answer_seconds": seconds * 4 + 60,
    }
    server = Server(Settings(data=folder, embedder="toy-384", models={"scripted": alias}), jobs=True)
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=lambda: (stop.wait(), setattr(server, "should_exit", True)), daemon=True).start()
    server.run([listener])


def fill(port: int) -> None:
    """Wait for the server and give it a document."""
    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        wait(lambda: _ready(http))
        store = http.post("/v1/vector_stores", json={"name": "lamp"}).json()["id"]
        file = http.post("/v1/files", files={"file": ("lamp.txt", TEXT)}, data={"purpose": "assistants"}).json()["id"]
        http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file})
        wait(lambda: http.get(f"/v1/vector_stores/{store}/files/{file}").json()["status"] == "completed")


def _ready(http: Any) -> bool:
    import httpx

    try:
        return bool(http.get("/readyz").status_code == 200)
    except httpx.TransportError:
        return False


def wait(holds: Any, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def cpu_of(places: Places) -> dict[str, float]:
    """Seconds of processor time that each process has taken so far (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent = {}
    for name, pid in places.pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent[name] = (int(fields[11]) + int(fields[12])) / ticks
    return spent


if __name__ == "__main__":
    main()
