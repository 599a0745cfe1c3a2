"""A program in a process of its own, bounded in time, and the memory that it takes with all that it starts."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

EVERY_SECONDS = 0.5
"""Between two looks at the memory: a look takes the kernel some milliseconds."""


class Memory:
    """Watches a process and its descendants while the block runs; `peak` is in bytes.

    Counted is the proportional share (PSS) of each process, so that what several share counts once; with "Pss_Anon"
    without mapped files, which can be dropped at any time.
    """

    def __init__(self, pid: int, kind: str = "Pss", every: float = EVERY_SECONDS) -> None:
        self.peak = 0
        self._pid, self._kind, self._every = pid, kind, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.peak = max(self.peak, tree_bytes(self._pid, self._kind))


def tree_bytes(pid: int, kind: str = "Pss") -> int:
    """Bytes of memory that a process and its descendants hold now."""
    return sum(share_bytes(one, kind) for one in _tree(pid))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return found


def share_bytes(pid: int, kind: str = "Pss") -> int:
    """Bytes of memory that one process holds now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int | None
    """Its exit status; None where it ran past its time and was killed."""
    peak: int
    """Bytes of memory at most, of the whole tree."""
    said: str
    """The last line that it printed."""


def run_watched(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> Ended:
    """Run a program to its end, or to the end of its time; it and what it started are gone then."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | None = None
        try:
            with Memory(process.pid) as memory:
                code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = log.read_text(errors="replace").strip().rpartition("\n")[2]
    return Ended(code, memory.peak, said[:300])


def machine() -> str:
    """The processor, its cores and the memory of this machine."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores, {model}, {gigabytes:.0f} GB"


def today() -> str:
    """The date, as results tell it."""
    return time.strftime("%Y-%m-%d")
