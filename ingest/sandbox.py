"""Parsing in another process, so that no file can harm this one.

`ParserPool` keeps one warm parser process per worker (`ingest.sandbox_child`), which forks for every file; only small
plain texts and Markdown, which nothing but Python code reads, share a fork where several come at once. The fork has
limits on memory, CPU time, files and wall time, no network, and may write only into a folder of its own
(`ingest.confine` says how, and a probe at start tries whether it holds). Its answer is a file of JSON, limited in size,
checked against every promise of `ParsedDocument` before anyone sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.document import Block, ParsedDocument, check
from ingest.failures import FAILURE_CODES, DocumentFailure

logger = logging.getLogger(__name__)

_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0
_LONGEST_LINE = 65_536
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "TZ")
_OUT_OF_MEMORY_SHARE = 0.5
_SMALL_BYTES = 64 << 10
_PLAIN_NAMES = frozenset((".txt", ".text", ".md", ".markdown"))
_LONGEST_PART = 64 << 20
_WHOLE = b'{"replies":'
_TOGETHER_SECONDS = 10.0
"""What a fork with several files gets. When that is not enough, each is parsed by itself."""

LARGE_BYTES = 8 << 20
"""A larger file is taken apart where its format allows that."""

Outcome = ParsedDocument | DocumentFailure
Parts = Iterable[ParsedDocument]
"""A document in parts that follow each other without a gap: the text of the whole is theirs, joined. Of a large file,
they are read anew from the disk each time."""


@dataclasses.dataclass(frozen=True)
class ParseLimits:
    """What one file may take."""

    wall_seconds: float = 50.0
    cpu_seconds: int = 45
    memory_bytes: int = 2**30
    """On top of what the warm parser takes itself; also for each program that it starts."""
    file_bytes: int = 512 * 2**20
    """Of the file to parse."""
    scratch_bytes: int = 256 * 2**20
    """Of each file that the parser writes."""
    open_files: int = 128
    text_characters: int = 64 * 2**20
    answer_bytes: int = 200 * 2**20


@dataclasses.dataclass(frozen=True)
class Confinement:
    """What a probe found denied in a parser process, by trying it."""

    network: bool
    write: bool
    read: bool
    program: bool
    signal: bool


class ParserPool:
    """Parses files in confined processes, `workers` at a time. Safe to share between threads.

    `scratch` is a folder of the pool's own; each file gets a new folder there, removed when its parse ends.
    `loaders` replace or extend the table in `ingest.loaders` (media type to `module:function`).
    """

    def __init__(
        self, limits: ParseLimits, scratch: Path, workers: int = 1, loaders: Mapping[str, str] | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"a parser pool has at least one worker, not {workers}")
        scratch.mkdir(parents=True, exist_ok=True)
        _sweep(scratch)
        self._limits = limits
        self._scratch = scratch.resolve()
        self._workers = [_Worker(limits, scratch.resolve(), dict(loaders or {})) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the one used last is the warmest
        for worker in self._workers:
            self._idle.put(worker)
        self._closed = False

    def start(self) -> None:
        """Start the processes without waiting for them; otherwise the first file of each worker does."""
        for worker in self._workers:
            worker.start()

    def parse(self, path: Path, filename: str) -> ParsedDocument:
        """The document in the file at `path`; waits for a free worker. `filename` is the name its owner gave it.

        Raises DocumentFailure; where its `retryable` is true, the fault was not the file's.
        """
        (outcome,) = self.parse_all([(path, filename)])
        if isinstance(outcome, DocumentFailure):
            raise outcome
        return outcome

    def parse_all(self, files: Sequence[tuple[Path, str]]) -> list[Outcome]:
        """`parse` for each of these (path, name), with failures in the place of documents."""
        outcomes: dict[int, Outcome] = {}
        together = [at for at, (path, filename) in enumerate(files) if _is_small_text(path, filename)]
        if len(together) > 1:
            found = self._parse_together([files[at] for at in together])
            outcomes = {at: one for at, one in zip(together, found, strict=True) if one is not None}
        return [outcomes[at] if at in outcomes else self._parse_alone(*files[at]) for at in range(len(files))]

    @contextlib.contextmanager
    def parts(self, path: Path, filename: str) -> Iterator[Parts]:
        """`parse` for a file too large to hold; of plain text no more than a part is in memory at a time."""
        self._require_allowed(path)
        folder = Path(tempfile.mkdtemp(prefix=f"parse-{os.getpid()}-", dir=self._scratch))
        try:
            with self._worker() as worker:
                parts = worker.parts(path, filename, folder)
            yield parts
        finally:
            _remove(folder)

    def _parse_together(self, files: Sequence[tuple[Path, str]]) -> list[Outcome | None]:
        """Small texts in one fork; None for each that is to be parsed by itself."""
        try:
            with self._worker() as worker:
                return worker.parse_together(files)
        except DocumentFailure as failure:
            logger.debug("each of %d small files is parsed by itself: %s", len(files), failure)
            return [None] * len(files)

    def _parse_alone(self, path: Path, filename: str) -> Outcome:
        try:
            self._require_allowed(path)
            with self._worker() as worker:
                return worker.parse(path, filename)
        except DocumentFailure as failure:
            return failure

    def _require_allowed(self, path: Path) -> None:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DocumentFailure(
                "server_error", f"The stored file cannot be read: {error}.", retryable=True
            ) from error
        if size > self._limits.file_bytes:
            raise DocumentFailure(
                "too_large", f"The file has {size} bytes; {self._limits.file_bytes} are the limit. Split it."
            )

    @contextlib.contextmanager
    def _worker(self) -> Iterator[_Worker]:
        worker = self._idle.get()
        try:
            if self._closed:
                raise DocumentFailure("server_error", "The parser is shutting down.", retryable=True)
            yield worker
        finally:
            self._idle.put(worker)

    def confinement(self) -> Confinement:
        """What is denied to the parser processes on this machine. Starts one where none runs yet."""
        with self._worker() as worker:
            return worker.confinement()

    def close(self) -> None:
        """End all parser processes; parses under way fail as retryable."""
        self._closed = True
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ParserLost(Exception):
    """The parser process does not answer as it should."""


class _Worker:
    """One parser process, started when it is needed and again after it was lost. One caller at a time."""

    def __init__(self, limits: ParseLimits, scratch: Path, loaders: dict[str, str]) -> None:
        self._limits = limits
        self._loaders = json.dumps(loaders)
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._confinement: Confinement | None = None
        self._held = b""
        self._warm: set[str] = set()
        self._lock = threading.Lock()  # of starting and stopping

    def start(self) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._forget()
            with (self._scratch / "parser.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-s", "-m", "ingest.sandbox_child", self._loaders],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self._scratch,
                    env=_environment(self._scratch),
                    start_new_session=True,
                    bufsize=0,
                )

    def stop(self) -> None:
        with self._lock:
            self._forget()

    def confinement(self) -> Confinement:
        self.start()
        if self._confinement is None:
            self._await_ready()
        assert self._confinement is not None
        return self._confinement

    def parse(self, path: Path, filename: str) -> ParsedDocument:
        (document,) = self._outcomes([(path, filename)], self._limits)
        if isinstance(document, DocumentFailure):
            raise document
        assert document is not None, "one file is always parsed"
        self._keep_warm(document.media_type)
        return document

    def parse_together(self, files: Sequence[tuple[Path, str]]) -> list[Outcome | None]:
        """What the fork tells of each file. Raises DocumentFailure where it ended badly."""
        short = min(_TOGETHER_SECONDS, self._limits.wall_seconds)
        return self._outcomes(files, dataclasses.replace(self._limits, wall_seconds=short))

    def parts(self, path: Path, filename: str, folder: Path) -> Parts:
        """The parts of a large file, which lie in the folder. Raises DocumentFailure."""
        room = 3 * path.stat().st_size  # of UTF-16, say, and with every line break as two characters
        limits = dataclasses.replace(
            self._limits,
            scratch_bytes=max(self._limits.scratch_bytes, room),
            answer_bytes=max(self._limits.answer_bytes, room),
        )
        answer = self._answered([(path, filename)], folder, limits, parts=True)
        with answer.open("rb") as file:
            whole = file.read(len(_WHOLE)) == _WHOLE
        if not whole:
            return _PartsFile(answer, limits)
        (outcome,) = _read_answer(answer, self._limits, 1)
        if isinstance(outcome, DocumentFailure):
            raise outcome
        assert outcome is not None, "one file is always parsed"
        return [outcome]

    def _outcomes(self, files: Sequence[tuple[Path, str]], limits: ParseLimits) -> list[Outcome | None]:
        folder = Path(tempfile.mkdtemp(prefix=f"parse-{os.getpid()}-", dir=self._scratch))
        try:
            return _read_answer(self._answered(files, folder, limits), limits, len(files))
        finally:
            _remove(folder)

    def _answered(
        self, files: Sequence[tuple[Path, str]], folder: Path, limits: ParseLimits, *, parts: bool = False
    ) -> Path:
        """The fork's answer. Raises DocumentFailure where it ended badly."""
        try:
            (folder / "work").mkdir()
            _judge(self._run(files, folder, limits, parts=parts), limits)
        except (_ParserLost, OSError) as error:
            self.stop()
            raise DocumentFailure("server_error", f"The parser process was lost: {error}.", retryable=True) from error
        return folder / "answer.json"

    def _run(
        self, files: Sequence[tuple[Path, str]], folder: Path, limits: ParseLimits, *, parts: bool
    ) -> dict[str, Any]:
        """Have files parsed. Returns the report of how the fork ended, with `late` where we ended it."""
        self.confinement()
        self._send(
            {
                "files": [[os.fspath(path.resolve()), filename] for path, filename in files],
                "work": os.fspath(folder / "work"),
                "answer": os.fspath(folder / "answer.json"),
                "limits": dataclasses.asdict(limits),
                "parts": parts,
            }
        )
        started = self._receive(_START_SECONDS).get("started")
        try:
            return self._receive(limits.wall_seconds) | {"late": False}
        except TimeoutError:
            return self._end(started) | {"late": True}

    def _end(self, group: Any) -> dict[str, Any]:
        """End a parse that takes too long. The parser process kills the fork's whole group; if it does not, we do."""
        self._send({"kill": True})
        try:
            return self._receive(_GRACE_SECONDS)
        except (TimeoutError, _ParserLost):
            if isinstance(group, int) and group > 1:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
            self.stop()
            return {"signal": int(signal.SIGKILL), "exit": None, "grown": 0, "cpu": 0.0}

    def _keep_warm(self, media_type: str) -> None:
        """After the first file of a kind, the parser process imports that loader while it is idle."""
        if media_type not in self._warm:
            self._warm.add(media_type)
            with contextlib.suppress(OSError, _ParserLost):
                self._send({"warm": media_type})

    def _await_ready(self) -> None:
        try:
            told = self._receive(_START_SECONDS).get("ready", {})
        except (TimeoutError, _ParserLost) as error:
            log = (self._scratch / "parser.log").read_text(errors="replace")[-500:].strip()
            raise _ParserLost(f"it did not start ({error}) {log}") from error
        names = [field.name for field in dataclasses.fields(Confinement)]
        self._confinement = Confinement(**{name: told.get(name) is True for name in names})
        missing = [name for name in names if not getattr(self._confinement, name)]
        if missing:
            logger.warning(
                "the kernel does not deny a parser process: %s; only Python code is held back", ", ".join(missing)
            )

    def _send(self, line: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise _ParserLost("it was stopped")
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next line from the parser process. Raises TimeoutError, or _ParserLost where it ended."""
        process = self._process
        if process is None or process.stdout is None:
            raise _ParserLost("it was stopped")
        descriptor, deadline = process.stdout.fileno(), time.monotonic() + seconds
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._held:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError(f"no answer within {seconds:g} s")
            read = os.read(descriptor, _LONGEST_LINE)
            if not read or len(self._held) > _LONGEST_LINE:
                raise _ParserLost("it ended or sent nonsense")
            self._held += read
        line, self._held = self._held.split(b"\n", 1)
        try:
            told = json.loads(line)
        except ValueError as error:
            raise _ParserLost("it sent nonsense") from error
        if not isinstance(told, dict):
            raise _ParserLost("it sent nonsense")
        return told

    def _forget(self) -> None:
        process, self._process = self._process, None
        self._held, self._confinement = b"", None
        self._warm.clear()
        if process is None:
            return
        process.kill()  # its forks die with it
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _is_small_text(path: Path, filename: str) -> bool:
    """Whether a file may share a fork, by its name: the fork looks at the content."""
    try:
        return Path(filename).suffix.lower() in _PLAIN_NAMES and path.stat().st_size <= _SMALL_BYTES
    except OSError:
        return False


def _judge(ended: dict[str, Any], limits: ParseLimits) -> None:
    """Raise the failure that the fork's end amounts to, if it does."""
    if ended["late"]:
        raise _timeout(limits.wall_seconds)
    killed_by = ended.get("signal")
    if killed_by == signal.SIGXCPU or (killed_by == signal.SIGKILL and ended.get("cpu", 0) >= limits.cpu_seconds):
        raise _timeout(limits.cpu_seconds)
    if killed_by == signal.SIGKILL:
        raise DocumentFailure(
            "server_error", "The parser was killed from outside, probably for want of memory.", retryable=True
        )
    if killed_by or ended.get("exit") != 0:
        if ended.get("grown", 0) > _OUT_OF_MEMORY_SHARE * limits.memory_bytes:
            raise DocumentFailure(
                "too_large", f"Parsing the file takes more than {limits.memory_bytes >> 20} MiB of memory. Split it."
            )
        raise DocumentFailure("invalid_file", "The file is damaged: the parser crashed on it.")


@dataclasses.dataclass(frozen=True)
class _PartsFile:
    """The parts that a fork wrote, one on each line."""

    path: Path
    limits: ParseLimits

    def __iter__(self) -> Iterator[ParsedDocument]:
        with self.path.open("rb") as file:
            while (line := file.readline(_LONGEST_PART)) != b"{}\n":
                try:
                    part = _document(json.loads(line), self.limits)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                    raise DocumentFailure("server_error", f"The parser's answer is not valid ({error}).") from error
                yield part


def _timeout(seconds: float) -> DocumentFailure:
    return DocumentFailure(
        "parse_timeout", f"Parsing the file took longer than {seconds:g} s. Split it or simplify it."
    )


def _read_answer(path: Path, limits: ParseLimits, count: int) -> list[Outcome | None]:
    """The answer, if it is one. It comes from a process that a hostile file may have taken over."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.answer_bytes + 1)
        if len(data) > limits.answer_bytes:
            raise ValueError("it is longer than allowed")
        replies = json.loads(data)["replies"]
        if type(replies) is not list or len(replies) != count:
            raise ValueError(f"it does not tell of {count} files")
        return [_outcome(reply, limits) for reply in replies]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DocumentFailure("server_error", f"The parser's answer is not valid ({error}).") from error


def _outcome(reply: dict[str, Any] | None, limits: ParseLimits) -> Outcome | None:
    if reply is None:
        return None
    return _failure(*reply["failure"]) if "failure" in reply else _document(reply, limits)


def _failure(code: Any, message: Any, retryable: Any) -> DocumentFailure:
    if code not in FAILURE_CODES or not isinstance(message, str):
        raise ValueError("its failure is of no known kind")
    return DocumentFailure(code, message[:1000], retryable=retryable is True)


def _document(reply: dict[str, Any], limits: ParseLimits) -> ParsedDocument:
    document = ParsedDocument(
        text=reply["text"],
        title=reply["title"],
        media_type=reply["media_type"],
        blocks=tuple(Block(*block) for block in reply["blocks"]),
        metadata=dict(reply["metadata"]),
    )
    check(document)
    if len(document.text) > limits.text_characters:
        raise ValueError("its text is longer than allowed")
    return document


def _environment(scratch: Path) -> dict[str, str]:
    """What the parser process knows of its surroundings: no key, no setting, no address."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | {
        "PYTHONPATH": os.fspath(Path(__file__).resolve().parents[1]),
        "HOME": os.fspath(scratch),
        "TMPDIR": os.fspath(scratch),
        "LANG": "C.UTF-8",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _remove(folder: Path) -> None:
    """Remove what a parse left. A leftover is a nuisance, not an error: the next start sweeps it."""

    def open_up(function: Any, path: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            function(path)

    try:
        shutil.rmtree(folder, onerror=open_up)
    except (OSError, RecursionError) as error:
        logger.warning("could not remove %s: %s", folder, error)


def _sweep(scratch: Path) -> None:
    """Remove the folders of pools whose process is gone."""
    for folder in scratch.glob("parse-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not _is_alive(int(owner)):
            _remove(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
