"""Whole installations out of real processes, from one to a small cluster, for tests that speak HTTP to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.campaigns.kills import free_port

READY_WITHIN = 90.0


@dataclass
class Process:
    """`rag serve` in a process of its own, with a data folder of its own."""

    role: str
    data: Path
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        environment = {**os.environ, "RAG_DATA": str(self.data), "RAG_LOG_LEVEL": "warning", **self.settings}
        command = [sys.executable, "-c", "from api.cli import main; main()", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--role", self.role], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def await_ready(self, seconds: float = READY_WITHIN) -> None:
        """Wait until it says that it can serve."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                assert self.process.stderr is not None
                raise AssertionError(f"the {self.role} ended by itself: {self.process.stderr.read().decode()[-3000:]}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the {self.role} was not ready within {seconds} s")

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait until it is gone."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process = None


@dataclass
class Installation:
    """Processes over one catalog."""

    processes: list[Process]

    @property
    def doors(self) -> list[str]:
        """The addresses that answer requests."""
        return [process.url for process in self.processes if process.role != "worker"]

    @property
    def workers(self) -> list[Process]:
        """The processes that run jobs."""
        return [process for process in self.processes if process.role != "api"]


@contextmanager
def running(processes: list[Process]) -> Iterator[Installation]:
    """Start the processes together; stop them at the end."""
    with ExitStack() as stack:
        for process in processes:
            process.start()
            stack.callback(process.stop)
        for process in processes:
            process.await_ready()
        yield Installation(processes)


def one_process(folder: Path, settings: Mapping[str, str]) -> list[Process]:
    """Everything in one process, over one folder."""
    return [Process("all", folder / "data", settings)]


def cluster(folder: Path, settings: Mapping[str, str], *, apis: int = 2, workers: int = 2) -> list[Process]:
    """Replicas and workers, each with a folder of its own; `settings` say what they share."""
    roles = ["api"] * apis + ["worker"] * workers
    return [Process(role, folder / f"{role}-{number}", settings) for number, role in enumerate(roles)]
