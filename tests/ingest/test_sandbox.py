from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.failures import DocumentFailure
from ingest.sandbox import ParseLimits, ParserPool
from ingest.sniff import PLAIN

LIMITS = ParseLimits(wall_seconds=20, memory_bytes=2**28, scratch_bytes=2**24, text_characters=2**21)
MISBEHAVING = {PLAIN: "tests.ingest.misbehaving_loader:load"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParserPool]:
    with ParserPool(LIMITS, tmp_path_factory.mktemp("scratch"), loaders=MISBEHAVING) as made:
        yield made


def told(pool: ParserPool, folder: Path, deed: str) -> str:
    path = folder / "deed.txt"
    path.write_text(deed)
    return pool.parse(path, "deed.txt").text


def failure(pool: ParserPool, folder: Path, deed: str) -> DocumentFailure:
    with pytest.raises(DocumentFailure) as caught:
        told(pool, folder, deed)
    return caught.value


def test_everything_is_denied_where_the_kernel_can(pool: ParserPool) -> None:
    held = vars(pool.confinement())
    if sys.platform == "linux" and Path("/sys/kernel/security/landlock").parent.exists():
        assert held["network"], held
        assert held["program"], held
    assert set(held) == {"network", "write", "read", "program", "signal"}


def test_no_network(pool: ParserPool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert told(pool, tmp_path, f"connect 127.0.0.1:{port}") == "PermissionError"
    assert told(pool, tmp_path, "listen") == "PermissionError"


def test_no_file_is_written_outside_of_scratch(pool: ParserPool, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    assert told(pool, tmp_path, f"write {target}") == "PermissionError"
    assert told(pool, tmp_path, f"write {tmp_path / 'new'}") == "PermissionError"
    assert target.read_text() == "untouched"
    assert not (tmp_path / "new").exists()


def test_no_other_file_is_read(pool: ParserPool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    if not pool.confinement().read:
        pytest.skip("this kernel has no Landlock, so reading is not confined here")
    assert told(pool, tmp_path, f"read {tmp_path / 'secret'}") == "PermissionError"
    assert told(pool, tmp_path, "read /etc/passwd") == "PermissionError"
    assert told(pool, tmp_path, "read /proc/1/environ") == "PermissionError"


def test_no_program_fork_signal_or_raised_limit(pool: ParserPool, tmp_path: Path) -> None:
    for deed in ("program", "fork", "murder", "raise_limits"):
        assert told(pool, tmp_path, deed) == "PermissionError", deed


def test_the_environment_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("RAG_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with ParserPool(LIMITS, tmp_path_factory.mktemp("scratch"), loaders=MISBEHAVING) as fresh:
        names = told(fresh, tmp_path, "environment").split()
    assert "HOME" in names
    assert not [name for name in names if "KEY" in name or name.startswith(("RAG", "OPENAI"))]


def test_scratch_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with ParserPool(LIMITS, scratch, loaders=MISBEHAVING) as pool:
        work = Path(told(pool, tmp_path, "linger"))
        assert scratch in work.parents
        failure(pool, tmp_path, "leave")
    assert [path.name for path in scratch.iterdir()] == ["parser.log"]


def test_leftovers_of_a_killed_server_are_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"parse-{gone.pid}-abc").mkdir()
    (tmp_path / f"parse-{os.getpid()}-def").mkdir()
    ParserPool(LIMITS, tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == [f"parse-{os.getpid()}-def"]


def test_memory_bombs(pool: ParserPool, tmp_path: Path) -> None:
    assert failure(pool, tmp_path, "memory").code == "too_large"
    assert failure(pool, tmp_path, "slowly").code == "too_large"
    assert told(pool, tmp_path, "nothing") == "fine"


def test_a_huge_file_or_text_is_too_large(pool: ParserPool, tmp_path: Path) -> None:
    assert told(pool, tmp_path, "file") == "OSError"
    assert failure(pool, tmp_path, "big").code == "too_large"


@pytest.mark.parametrize("deed", ["loop", "sleep"])
def test_wall_time_ends_a_parse(tmp_path: Path, deed: str) -> None:
    with ParserPool(replace(LIMITS, wall_seconds=0.5), tmp_path / "scratch", loaders=MISBEHAVING) as pool:
        assert told(pool, tmp_path, "nothing") == "fine"
        began = time.monotonic()
        assert failure(pool, tmp_path, deed).code == "parse_timeout"
        assert time.monotonic() - began < 5
        assert told(pool, tmp_path, "nothing") == "fine"


def test_processor_time_ends_a_parse(tmp_path: Path) -> None:
    with ParserPool(replace(LIMITS, cpu_seconds=1), tmp_path / "scratch", loaders=MISBEHAVING) as pool:
        assert failure(pool, tmp_path, "loop").code == "parse_timeout"


@pytest.mark.parametrize("deed", ["crash", "leave"])
def test_a_crash_is_the_files_fault_and_the_next_file_is_served(pool: ParserPool, tmp_path: Path, deed: str) -> None:
    found = failure(pool, tmp_path, deed)
    assert (found.code, found.retryable) == ("invalid_file", False)
    assert told(pool, tmp_path, "nothing") == "fine"


def test_an_answer_that_breaks_its_promises_is_refused(pool: ParserPool, tmp_path: Path) -> None:
    assert failure(pool, tmp_path, "lie").code == "server_error"


def test_a_killed_parser_process_is_replaced(tmp_path: Path) -> None:
    with ParserPool(LIMITS, tmp_path / "scratch", loaders=MISBEHAVING) as pool:
        assert told(pool, tmp_path, "nothing") == "fine"
        process = pool._workers[0]._process
        assert process is not None
        killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        found = failure(pool, tmp_path, "sleep")
        killer.join()
        assert (found.code, found.retryable) == ("server_error", True)
        assert told(pool, tmp_path, "nothing") == "fine"


def test_nothing_survives_the_server(tmp_path: Path) -> None:
    """Kill a process that is parsing: its parser and the fork at work are gone within moments."""
    (tmp_path / "deed.txt").write_text("sleep")
    script = (
        "from pathlib import Path; import sys\n"
        "from ingest.sandbox import ParseLimits, ParserPool\n"
        f"pool = ParserPool(ParseLimits(), Path({str(tmp_path / 'scratch')!r}), loaders={MISBEHAVING!r})\n"
        "pool.start(); print(pool._workers[0]._process.pid, flush=True)\n"
        f"pool.parse(Path({str(tmp_path / 'deed.txt')!r}), 'deed.txt')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        parser = int(server.stdout.readline())
        group_members = wait_for(lambda: [pid for pid in children_of(parser) if "work" in folder_of(pid)])
        server.kill()
        server.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (parser, *group_members)))


def children_of(process: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def folder_of(process: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/cwd")
    except OSError:
        return ""


def wait_for(condition: object, seconds: float = 10.0) -> object:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_threads_share_a_pool(tmp_path: Path) -> None:
    texts = {}
    with ParserPool(LIMITS, tmp_path / "scratch", workers=2) as pool:

        def parse(number: int) -> None:
            path = tmp_path / f"{number}.md"
            path.write_text(f"# Number {number}\n\nText {number}.\n")
            texts[number] = pool.parse(path, path.name).title

        threads = [threading.Thread(target=parse, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {number: f"Number {number}" for number in range(20)}


def test_small_files_cost_no_import(tmp_path: Path) -> None:
    """A count of work: twenty files need one parser process, and none takes as long as starting one."""
    path = tmp_path / "a.md"
    path.write_text("# Title\n\nText.\n")
    with ParserPool(LIMITS, tmp_path / "scratch") as pool:
        pool.confinement()
        process = pool._workers[0]._process
        times = []
        for _ in range(20):
            began = time.perf_counter()
            pool.parse(path, "a.md")
            times.append(time.perf_counter() - began)
        assert pool._workers[0]._process is process
    assert statistics.median(times) < 0.15


def test_heavy_loaders_are_imported_with_the_first_file_that_takes_one(tmp_path: Path) -> None:
    """It needs most of what they all import: `unstructured`, with the spaCy that it needs and without torch. The others
    come while nothing is to be done."""
    with ParserPool(LIMITS, tmp_path / "scratch") as pool:
        pool.confinement()
        process = pool._workers[0]._process
        assert process is not None
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            pytest.skip("this system does not show which libraries a process holds")
        (tmp_path / "a.md").write_text("A text asks for none.")
        pool.parse(tmp_path / "a.md", "a.md")
        time.sleep(1)
        assert "/spacy/" not in maps.read_text()
        (tmp_path / "a.eml").write_text("Subject: a\nFrom: b@c.d\nTo: e@f.g\n\nIt is a body.\n")
        assert pool.parse(tmp_path / "a.eml", "a.eml").text.endswith("It is a body.")
        assert pool._workers[0]._process is process
        assert "/spacy/" in maps.read_text()
        assert "/torch/" not in maps.read_text()
        assert wait_for(lambda: "/pandas/" in maps.read_text(), seconds=60)  # what spreadsheets take
        assert pool._workers[0]._process is process


def test_limits_of_the_input(tmp_path: Path) -> None:
    with ParserPool(replace(LIMITS, file_bytes=10), tmp_path / "scratch") as pool:
        (tmp_path / "a.txt").write_text("more than ten bytes")
        with pytest.raises(DocumentFailure, match="19 bytes") as caught:
            pool.parse(tmp_path / "a.txt", "a.txt")
        assert caught.value.code == "too_large"
        with pytest.raises(DocumentFailure) as missing:
            pool.parse(tmp_path / "absent", "absent")
        assert (missing.value.code, missing.value.retryable) == ("server_error", True)


def test_a_closed_pool_says_so(tmp_path: Path) -> None:
    pool = ParserPool(LIMITS, tmp_path / "scratch")
    pool.close()
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DocumentFailure) as caught:
        pool.parse(tmp_path / "a.txt", "a.txt")
    assert caught.value.retryable


def test_an_ordinary_user_is_confined_too(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("already an ordinary user, so the tests above show it")
    script = (
        "import os, socket, sys\n"
        "from pathlib import Path\n"
        "from ingest.confine import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "assert forbid_new_privileges() and drop_capabilities()\n"
        "print(restrict_files(['/usr', '/lib'], []), restrict_calls(programs=False))\n"
        "for attempt in (socket.socket, lambda: os.listdir('/etc'), os.fork):\n"
        "    try: attempt(); print('allowed')\n"
        "    except PermissionError: print('denied')\n"
    )
    here = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False)
    files, calls, network, reading, forking = done.stdout.split()
    assert (network, forking) == ("denied", "denied") if calls == "True" else calls == "False", done
    assert reading == "denied" if files == "True" else files == "False", done


def test_small_texts_share_a_fork_and_each_ends_as_it_would_alone(tmp_path: Path) -> None:
    contents = {
        "a.md": "# Title\n\nText.\n",
        "b.txt": "Plain text.\n",
        "page.txt": "<html><body><p>Not plain at all.</p></body></html>",
        "blank.txt": " \n",
        "program.txt": b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8,
    }
    files = [(tmp_path / name, name) for name in contents]
    for (path, _), content in zip(files, contents.values(), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with ParserPool(LIMITS, tmp_path / "scratch") as pool:
        forks = []
        worker = pool._workers[0]
        send = worker._send
        worker._send = lambda line: (forks.append(len(line.get("files", ()))), send(line))[1]  # type: ignore
        outcomes = pool.parse_all(files)
        assert [number for number in forks if number] == [5, 1]
        assert [str(getattr(one, "code", None) or one.media_type) for one in outcomes] == [  # type: ignore
            "text/markdown",
            "text/plain",
            "text/html",
            "empty",
            "unsupported_file",
        ]
    with ParserPool(LIMITS, tmp_path / "scratch", loaders=MISBEHAVING) as pool:
        # A loader of somebody else's may be anything: it gets a fork for each file.
        (tmp_path / "b.txt").write_text("crash")
        crashed, told = pool.parse_all([(tmp_path / "b.txt", "b.txt"), (tmp_path / "a.md", "a.md")])
        assert isinstance(crashed, DocumentFailure)
        assert not isinstance(told, DocumentFailure)


def test_where_a_shared_fork_fails_each_file_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sandbox._TOGETHER_SECONDS", 0.0)
    files = [(tmp_path / f"{number}.txt", f"{number}.txt") for number in range(3)]
    for path, name in files:
        path.write_text(f"Text of {name}")
    with ParserPool(LIMITS, tmp_path / "scratch") as pool:
        texts = [one.text for one in pool.parse_all(files) if not isinstance(one, DocumentFailure)]
    assert texts == [f"Text of {name}" for _, name in files]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_large_text_comes_in_parts_that_are_the_whole(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    text = "".join(f"Absatz {n} über Leuchttürme.\r\nZweite Zeile.\r\n\r\n" for n in range(40_000))
    path.write_bytes(text.encode(encoding))
    with ParserPool(LIMITS, tmp_path / "scratch") as pool, pool.parts(path, "a.txt") as parts:
        for _ in range(2):
            sizes = [len(part.text) for part in parts]
            assert "".join(part.text for part in parts) == text.replace("\r\n", "\n")
        assert len(sizes) == 2
        assert sizes[0] <= 1 << 20


def test_a_large_file_of_another_kind_is_one_part(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Lighthouses\n\nText.\n")
    with ParserPool(LIMITS, tmp_path / "scratch") as pool:
        with pool.parts(path, "a.md") as parts:
            assert [part.title for part in parts] == ["Lighthouses"]
        path.write_bytes(b"%PDF-1.7\nnot really")
        with pytest.raises(DocumentFailure), pool.parts(path, "a.md"):
            pass
