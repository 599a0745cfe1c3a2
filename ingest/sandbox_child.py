"""The parser process: `python -m ingest.sandbox_child LOADERS`, started by `ingest.sandbox`.

It stays small and single-threaded, reads one JSON line per file from standard input, and has a fork ready for each:
the fork confines itself, parses, writes its answer into a file opened beforehand, and ends. So no file ever sees
what another one left behind, and a fork costs milliseconds where a fresh interpreter costs half a second.

The heavy loaders (`unstructured` takes six seconds and 170 MB to import) wait for the first file that takes one of
them: it waits for the import, by its name, once; the others follow one by one while no file comes.

LOADERS is a JSON object, media type to `module:function`, of loaders that replace or extend the table; they are
imported at start, since a confined fork could not read their files.

Lines in:  {"path", "filename", "work", "answer", "limits": {...}}   parse
           {"warm": media type}                                      import that loader
           {"kill": true}                                            end the parse that runs now
Lines out: {"ready": {...}}, then for each parse {"started": pid} and {"signal", "exit", "grown", "cpu"}
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest import confine
from ingest.failures import DocumentFailure

Request = dict[str, Any]


def main() -> None:
    """Serve until standard input ends, which it does when the parent does."""
    lines_in, lines_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what a library prints must not look like a line of ours
    setting = _load(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    _say(lines_out, {"ready": _probe(setting.readable)})
    incoming = _Lines(lines_in)
    spare = _Spare(setting, (lines_in, lines_out))
    while True:
        cold = setting.next_to_warm() if incoming.are_quiet() else None
        request: Request | None = {"warm": cold} if cold else incoming.next()
        if request is None:
            return
        wanted = request.get("warm") or _kind_by_name(request.get("files", []))
        if wanted and wanted not in setting.warm:
            spare.discard()
            _warm(wanted, setting)
            spare = _Spare(setting, (lines_in, lines_out))
        if "files" not in request:
            continue  # also a "kill" for a parse that had ended by itself
        if not _serve(request, spare, incoming, lines_out):
            return
        spare = _Spare(setting, (lines_in, lines_out))


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What every fork of this process shares."""

    readable: list[str]
    loaders: dict[str, str]
    warm: set[str] = dataclasses.field(default_factory=set)

    def next_to_warm(self) -> str | None:
        """A media type whose loader takes long to import and is not yet here. None before there was a file of such a
        kind: many corpora have none."""
        from ingest.loaders import PARTITIONED

        if not self.warm & PARTITIONED.keys():
            return None
        return next((kind for kind in PARTITIONED if kind not in self.warm), None)


class _Spare:
    """A fork made ahead of the file that it will parse: forking and first touching its memory happen while idle."""

    def __init__(self, setting: _Setting, closing: tuple[int, ...]) -> None:
        reading, self._writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            _in_fork(lambda: _wait_and_parse(reading, setting), closing=(*closing, self._writing))
        os.close(reading)
        with contextlib.suppress(OSError):
            os.setpgid(self.process, self.process)

    def use(self, request: Request) -> None:
        """Hand it its file; it can have only one."""
        try:
            os.write(self._writing, json.dumps(request).encode() + b"\n")
        finally:
            os.close(self._writing)

    def discard(self) -> None:
        """End it unused."""
        os.close(self._writing)
        os.waitpid(self.process, 0)


class _Lines:
    """JSON lines from a pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._held = b""

    def are_quiet(self) -> bool:
        """Whether no line is waiting."""
        return b"\n" not in self._held and not select.select([self.descriptor], [], [], 0)[0]

    def next(self) -> Request | None:
        """The next line; None at the end."""
        while b"\n" not in self._held:
            read = os.read(self.descriptor, 65_536)
            if not read:
                return None
            self._held += read
        line, self._held = self._held.split(b"\n", 1)
        request: Request = json.loads(line)
        return request


def _serve(request: Request, spare: _Spare, incoming: _Lines, lines_out: int) -> bool:
    """Have the fork parse one file and report how it ended. False where the parent went away meanwhile."""
    child = spare.process
    with contextlib.suppress(BrokenPipeError):  # it died early: the report says how
        spare.use(request)
    _say(lines_out, {"started": child})
    alive = _await(child, incoming)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # not reaped yet, so the number is still its own; takes its programs along
    _, status, usage = os.wait4(child, 0)
    report = {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "grown": max(0, usage.ru_maxrss * 1024 - _resident()),
        "cpu": usage.ru_utime + usage.ru_stime,
    }
    if alive:
        _say(lines_out, report)
    return alive


def _await(child: int, incoming: _Lines) -> bool:
    """Wait until the child ends, without reaping it. A line or the end of input from the parent ends it at once."""
    try:
        ended = os.pidfd_open(child)
    except (AttributeError, OSError):  # an old kernel, or a container that forbids it
        return _look_again_and_again(child, incoming)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(incoming.descriptor, select.POLLIN | select.POLLHUP)
        events = dict(poll.poll())
        if ended in events:
            return True
        return incoming.next() is not None
    finally:
        os.close(ended)


def _look_again_and_again(child: int, incoming: _Lines) -> bool:
    poll = select.poll()
    poll.register(incoming.descriptor, select.POLLIN | select.POLLHUP)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if poll.poll(5):
            return incoming.next() is not None
    return True


def _in_fork(work: Callable[[], None], closing: tuple[int, ...]) -> None:
    """Run `work` in the fork that we are, and end it without the parent's clean-up."""
    code = 1
    try:
        os.setpgid(0, 0)
        confine.die_with_parent()
        for descriptor in closing:
            os.close(descriptor)
        work()
        code = 0
    finally:
        os._exit(code)


def _wait_and_parse(reading: int, setting: _Setting) -> None:
    _touch()
    request = _Lines(reading).next()
    os.close(reading)
    if request is not None:
        _parse(request, setting)


def _parse(request: Request, setting: _Setting) -> None:
    limits = request["limits"]
    files, work = [(Path(path), filename) for path, filename in request["files"]], Path(request["work"])
    answer = os.open(request["answer"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    _confine([path for path, _ in files], work, limits, setting.readable)
    together = len(files) > 1
    if together:
        confine.restrict_calls(programs=False)
    if request["parts"] and _is_plain(*files[0], setting.loaders):
        _write_parts(answer, files[0][0])
        return
    replies = [_attempt(path, filename, limits, setting.loaders, together=together) for path, filename in files]
    _write(answer, _encode(replies, limits["answer_bytes"]))


def _is_plain(path: Path, filename: str, loaders: dict[str, str]) -> bool:
    from ingest.loaders import LOADERS
    from ingest.sniff import PLAIN, sniff

    if loaders[PLAIN] != LOADERS[PLAIN]:
        return False
    with contextlib.suppress(DocumentFailure):  # the ordinary way tells of it
        return sniff(path, filename) == PLAIN
    return False


def _write_parts(answer: int, path: Path) -> None:
    """A large plain text, a part on each line; behind the last one an empty object, so that none is missed."""
    from ingest.loaders.text import load_parts

    confine.restrict_calls(programs=False)
    for part in load_parts(path):
        blocks = [dataclasses.astuple(block) for block in part.blocks]
        reply = {"text": part.text, "title": "", "media_type": part.media_type, "blocks": blocks, "metadata": {}}
        _write(answer, json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    _write(answer, b"{}\n")


def _write(answer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(answer, view) :]


def _confine(paths: list[Path], work: Path, limits: dict[str, int], readable: list[str]) -> dict[str, bool]:
    os.chdir(work)
    os.environ["TMPDIR"] = os.environ["HOME"] = str(work)
    tempfile.tempdir = str(work)
    confine.limit_resources(
        memory_bytes=limits["memory_bytes"],
        cpu_seconds=limits["cpu_seconds"],
        file_bytes=limits["scratch_bytes"],
        open_files=limits["open_files"],
    )
    held = {"privileges": confine.forbid_new_privileges()}
    held["capabilities"] = confine.drop_capabilities()
    held["files"] = confine.restrict_files([*readable, *paths], [work])
    held["calls"] = confine.restrict_calls(programs=True)
    if not (held["files"] and held["calls"]):
        _refuse_in_python(work)
    return held


def _attempt(
    path: Path, filename: str, limits: dict[str, int], loaders: dict[str, str], *, together: bool
) -> dict[str, Any] | None:
    """Parse, with every way to fail turned into a reply; None for a file that is to have a fork of its own."""
    try:
        return _parsed(path, filename, limits, loaders, together=together)
    except DocumentFailure as failure:
        return {"failure": [failure.code, failure.message, failure.retryable]}
    except MemoryError:
        return {"failure": ["too_large", _too_much_memory(limits), False]}
    except Exception as error:  # noqa: BLE001 (a parser may raise anything on a damaged file)
        if "memory" in str(error).lower() and "alloc" in str(error).lower():
            return {"failure": ["too_large", _too_much_memory(limits), False]}
        reason = f"{type(error).__name__}: {error}"[:300]
        return {"failure": ["invalid_file", f"The file is damaged or unusual and cannot be read ({reason}).", False]}


def _parsed(
    path: Path, filename: str, limits: dict[str, int], loaders: dict[str, str], *, together: bool
) -> dict[str, Any] | None:
    from ingest.loaders import LOADERS, NEEDS_A_PROGRAM, loader_for
    from ingest.sniff import MARKDOWN, PLAIN, sniff

    media_type = sniff(path, filename)
    if together and (media_type not in (PLAIN, MARKDOWN) or loaders[media_type] != LOADERS[media_type]):
        return None
    if not together and media_type not in NEEDS_A_PROGRAM:
        confine.restrict_calls(programs=False)
    document = loader_for(media_type, loaders)(path, filename)
    if len(document.text) > limits["text_characters"]:
        raise DocumentFailure(
            "too_large",
            f"The file holds {len(document.text)} characters; {limits['text_characters']} are the limit. Split it.",
        )
    return {
        "text": document.text,
        "title": document.title,
        "media_type": media_type,
        "blocks": [dataclasses.astuple(block) for block in document.blocks],
        "metadata": dict(document.metadata),
    }


def _encode(replies: list[dict[str, Any] | None], most: int) -> bytes:
    data = json.dumps({"replies": replies}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(data) > most:
        failure = ["too_large", "The file's text and structure are larger than the limit. Split it.", False]
        data = json.dumps({"replies": [{"failure": failure} if len(replies) == 1 else None] * len(replies)}).encode()
    return data


def _too_much_memory(limits: dict[str, int]) -> str:
    return f"Parsing the file takes more than {limits['memory_bytes'] >> 20} MiB of memory. Split it or simplify it."


def _probe(readable: list[str]) -> dict[str, bool]:
    """What really holds in a confined fork, tried rather than believed. True: denied as it should be."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        outside = Path(folder, "outside")
        outside.write_text("x")
        child = os.fork()
        if child == 0:
            _in_fork(lambda: _try_to_escape(work, outside, readable, writing), closing=(reading,))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
    held: dict[str, bool] = json.loads(told or b"{}")
    return {name: held.get(name, False) for name in ("network", "write", "read", "program", "signal")}


def _try_to_escape(work: Path, outside: Path, readable: list[str], writing: int) -> None:
    import socket

    limits = {"memory_bytes": 2**28, "cpu_seconds": 5, "scratch_bytes": 2**20, "open_files": 64}
    parent = os.getppid()
    _confine([outside.parent / "file"], work, limits, readable)
    confine.restrict_calls(programs=False)
    held = {
        "network": _denied(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "write": _denied(lambda: os.close(os.open(outside, os.O_WRONLY))),
        "read": _denied(lambda: os.close(os.open(outside, os.O_RDONLY))),
        "program": _denied(lambda: os.execv("/bin/true", ["true"])),  # noqa: S606
        "signal": _denied(lambda: os.kill(parent, 0)),
    }
    os.write(writing, json.dumps(held).encode())


def _denied(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _refuse_in_python(work: Path) -> None:
    """Where the kernel offers no better: an audit hook. It stops library code, not code that took over the process."""
    inside = f"{work}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event != "socket.gethostname":
            raise PermissionError("a parser has no network")
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.path.abspath(arguments[0])
            if not path.startswith(inside) and path != os.devnull:
                raise PermissionError(f"a parser writes only inside {work}")

    sys.addaudithook(hook)


def _load(others: dict[str, str]) -> _Setting:
    """Import what is cheap, and what the caller adds."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # spaCy imports it where it is, and needs nothing of it
    import charset_normalizer
    import lxml.etree

    from ingest.loaders import LOADERS, html, loader_for

    del charset_normalizer, lxml, html  # wanted in memory, not by name
    for media_type in others:
        loader_for(media_type, others)
    _touch()
    gc.collect()
    gc.freeze()  # the forks share these pages for longer
    return _Setting(confine.readable_by_default(Path(__file__).parent), {**LOADERS, **others})


def _touch() -> None:
    """Do once what every parse does, on a text of our own: a fork copies memory when it first writes to it."""
    from ingest.loaders import markdown
    from ingest.loaders.building import clean
    from ingest.sniff import sniff

    text = markdown.split_front_matter(clean("# a\n\nb\n\n- c\n\n```\nd\n```\n\n| e |\n|---|\n| f |\n"))[1]
    blocks = [dataclasses.astuple(block) for block in markdown.find_blocks(text)]
    json.dumps({"text": text, "blocks": blocks}, ensure_ascii=False, separators=(",", ":")).encode()
    sniff(Path(__file__), "a.md")


def _kind_by_name(files: list[list[str]]) -> str | None:
    """The media type with a heavy loader that a file's name promises. Only a hint: the fork looks at the content."""
    from ingest.loaders import PARTITIONED

    if len(files) != 1:
        return None
    extension = Path(files[0][1]).suffix.lower().lstrip(".").replace("eml", "email")
    return next((media_type for media_type, name in PARTITIONED.items() if name == extension), None)


def _warm(media_type: str, setting: _Setting) -> None:
    """Import a loader and what it imports late, so that the next fork has it."""
    from ingest.loaders import warm

    setting.warm.add(media_type)
    if media_type in setting.loaders:
        with contextlib.suppress(ImportError):
            warm(media_type, setting.loaders)
        gc.collect()
        gc.freeze()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(descriptor: int, line: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
