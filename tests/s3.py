"""An S3 server for the tests: moto's, in a process of its own, on loopback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.campaigns.kills import free_port

KEY, SECRET = "test-key", "test-secret-canary"
STARTS_WITHIN = 60.0


@contextmanager
def running_s3() -> Iterator[str]:
    """The server's address for as long as the context lasts. Skips where its package or s3fs is not installed."""
    for package, extra in (("s3fs", "s3"), ("moto", "test"), ("flask_cors", "test")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'rag[{extra}]'")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _await(process, address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def make_bucket(address: str, name: str) -> str:
    """The URL of a new bucket, as one would write it into the settings."""
    httpx.put(f"{address}/{name}", trust_env=False).raise_for_status()
    return f"s3://{name}/some/prefix?endpoint_url={address}&key={KEY}&secret={SECRET}"


def _await(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            httpx.get(f"{address}/moto-api/", timeout=5.0, trust_env=False).raise_for_status()
        except httpx.TransportError:
            assert process.poll() is None, f"moto ended by itself with {process.returncode}"
            assert time.monotonic() < deadline, "moto did not answer in time"
            time.sleep(0.05)
        else:
            return
