"""A loader that does what the file tells it to, as a hostile file would that took the parser over.

The first line names the deed. What the text of the answer says is what the deed came to.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ingest.document import Block, ParsedDocument


def load(path: Path, filename: str) -> ParsedDocument:
    deed, _, argument = path.read_text().strip().partition(" ")
    try:
        told = str(DEEDS[deed](argument))
    except OSError as error:
        told = f"{type(error).__name__}"
    if deed == "lie":
        return ParsedDocument("text outside of blocks", "", "text/plain", (Block(5, 4, "heading", 9),))
    return ParsedDocument(told, "", "text/plain", (Block(0, len(told), "paragraph"),))


def connect(address: str) -> str:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=2):
        return "connected"


def listen(_: str) -> str:
    socket.socket(socket.AF_UNIX).bind("here")
    return "listening"


def write(path: str) -> str:
    Path(path).write_text("was here")
    return "written"


def read(path: str) -> str:
    return Path(path).read_text()


def program(_: str) -> str:
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout


def fork(_: str) -> str:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return "forked"


def loop(_: str) -> str:
    while True:
        pass


def sleep(_: str) -> str:
    time.sleep(600)
    return "slept"


def linger(path: str) -> str:
    """End well, with a file of any size left in the working folder."""
    Path("left-behind").write_bytes(b"x" * 1000)
    return os.getcwd()


def memory(_: str) -> str:
    return str(len(bytearray(2**36)))


def slowly(_: str) -> str:
    held = []
    while True:
        held.append(bytearray(2**22))


def crash(_: str) -> str:
    return str(ctypes.string_at(8))


def leave(_: str) -> str:
    os._exit(3)


def murder(_: str) -> str:
    os.kill(os.getppid(), signal.SIGKILL)
    return "killed"


def raise_limits(_: str) -> str:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:
        raise PermissionError from error
    return "raised"


def environment(_: str) -> str:
    return " ".join(sorted(os.environ))


def big(_: str) -> str:
    return "word " * 1_000_000


def file(_: str) -> str:
    with open("huge", "wb") as out:
        for _ in range(1000):
            out.write(b"x" * 2**20)
    return "written"


def nothing(_: str) -> str:
    return "fine"


DEEDS = {
    name: value
    for name, value in vars(sys.modules[__name__]).items()
    if callable(value) and getattr(value, "__module__", "") == __name__ and name != "load"
} | {"lie": nothing}
