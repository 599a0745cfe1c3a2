"""The command line as a person runs it: real processes, real files, a real server, a toy embedder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.commands import doctor
from rag.embedders import EmbedderRegistry, compiled
from rag.embedders.agreement import Agreement
from rag.embedders.encoder import ModelFacts
from rag.embedders.model_files import resolve_model
from rag.settings import Settings, load_settings
from tests.postgres import PASSWORD
from tests.s3 import SECRET, make_bucket

ROOT = Path(__file__).resolve().parents[2]
KEY = "a key of the tests"
HEAVY = ("torch", "numpy", "sqlalchemy", "fastapi", "uvicorn", "httpx", "pydantic", "rich", "dbos", "rag.backend")


def environment(data, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAG_") or name == "RAG_CACHE"}
    return kept | {"PYTHONPATH": str(ROOT), "RAG_EMBEDDER": "toy-384", "RAG_DATA": str(data)} | more


def command(*arguments):
    return [sys.executable, "-c", "from api.cli import main; main()", *map(str, arguments)]


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Rag:
    """Runs `rag` in a process of its own; every answer is checked for tracebacks and leaked keys."""

    def __init__(self, folder, data, **variables):
        self.folder = folder
        self.variables = environment(data, **variables)

    def call(self, arguments):
        done = subprocess.run(
            command(*arguments), cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=90
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments, code=0):
        done = self.call(arguments)
        assert done.code == code, (arguments, done)
        assert "Traceback" not in done.stderr + done.stdout
        assert KEY not in done.stderr + done.stdout
        return done

    def text(self, *arguments, code=0):
        return self.run(*arguments, code=code).stdout

    def json(self, *arguments, code=0):
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def events(self, *arguments, code=0):
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).stdout.splitlines()]

    def error(self, *arguments, code):
        done = self.run(*arguments, "--json", code=code)
        assert done.stdout == ""
        return json.loads(done.stderr.splitlines()[-1])["error"]["code"]


class RagHere(Rag):
    """The same commands in the process of the tests, which saves each its start. They speak to a real server."""

    def call(self, arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], env=self.variables)
        return Done(done.exit_code, done.stdout, done.stderr)


@contextmanager
def server(folder, data, **variables):
    process = subprocess.Popen(
        command("serve", "--port", "0", "--json"),
        cwd=folder,
        env=environment(data, RAG_LOG_LEVEL="warning", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["url"], process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server with a key, and a `rag` that speaks to it."""
    folder = tmp_path_factory.mktemp("cli")
    with server(folder, folder / "data", RAG_API_KEY=KEY) as (url, _):
        yield RagHere(folder, folder / "elsewhere", RAG_API_KEY=KEY, RAG_URL=url)


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "cats.md").write_text("# Cats\n\nCats purr when they are content.\n")
    (folder / "sub" / "dogs.txt").write_text("Dogs bark at strangers in the night.\n")
    (folder / "sub" / "owls.txt").write_text("Owls turn their heads very far around.\n")
    (folder / "trout.txt").write_text("Trout swim upstream to lay their eggs.\n")
    return folder


def test_help_is_fast_because_nothing_heavy_is_imported():
    script = f"import sys, api.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    said = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in said.splitlines() if line.startswith("  ") and line.strip()}
    assert {"serve", "ingest", "status", "stores", "files", "delete", "retry", "cancel"} <= listed
    assert {"search", "context", "ask", "models", "keys", "eval", "doctor"} <= listed


def test_without_a_server_a_folder_is_ingested_once(tmp_path, docs):
    rag = Rag(tmp_path, tmp_path / "data")
    first = rag.events("ingest", docs, "--store", "pets")[-1]
    assert (first["added"], first["completed"], first["failed"]) == (4, 4, [])
    assert first["embedded"] == 4
    assert first["embedded_tokens"] > 20
    second = rag.events("ingest", "docs/../docs", "--store", "pets")[-1]
    assert (second["unchanged"], second["added"], second["embedded"]) == (4, 0, 0)
    hits = rag.json("search", "pets", "who purrs?")["data"]
    assert hits[0]["filename"] == "cats.md"
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_what_an_earlier_run_left_unfinished_is_waited_for(tmp_path, docs):
    rag = Rag(tmp_path, tmp_path / "data")
    queued = rag.events("ingest", docs, "--store", "later", "--no-wait")[-1]
    assert (queued["added"], queued["completed"], queued["waited"]) == (4, 0, False)
    end = rag.events("ingest", docs, "--store", "later")[-1]
    assert (end["unchanged"], end["completed"], end["failed"]) == (4, 4, [])


def test_a_sync_embeds_what_changed_and_removes_what_is_gone(shared, docs):
    assert shared.events("ingest", docs, "--store", "sync")[-1]["embedded"] == 4
    (docs / "cats.md").write_text("# Cats\n\nCats hiss when they are not content.\n")
    (docs / "sub" / "owls.txt").rename(docs / "night owls.txt")
    (docs / ".hidden").write_text("not for searching")
    end = shared.events("ingest", docs, "--store", "sync")[-1]
    counts = {name: end[name] for name in ("added", "changed", "unchanged", "removed", "hidden", "embedded")}
    # A moved file is another document with the same text: nothing of it is embedded again.
    assert counts == {"added": 1, "changed": 1, "unchanged": 2, "removed": 1, "hidden": 1, "embedded": 1}
    files = {file["source"]: file["state"] for file in shared.json("files", "sync")}
    assert files == dict.fromkeys(
        ("docs/cats.md", "docs/night owls.txt", "docs/sub/dogs.txt", "docs/trout.txt"), "completed"
    )
    assert "hiss" in shared.text("search", "sync", "cats")


def test_removing_much_must_be_said_twice_and_missing_is_not_empty(shared, docs):
    shared.events("ingest", docs, "--store", "guard")
    (docs / "cats.md").unlink()
    (docs / "trout.txt").unlink()
    (docs / "new.txt").write_text("Newts regrow their tails.\n")
    assert shared.error("ingest", docs, "--store", "guard", code=2) == "removes_too_much"
    assert len(shared.json("files", "guard")) == 4
    parked = docs.rename(docs.parent / "parked")
    assert shared.error("ingest", docs, "--store", "guard", code=3) == "path_not_found"
    docs.mkdir()
    assert shared.error("ingest", docs, "--store", "guard", "--yes", code=2) == "folder_empty"
    assert len(shared.json("files", "guard")) == 4
    docs.rmdir()
    parked.rename(docs)
    end = shared.events("ingest", docs, "--store", "guard", "--yes")[-1]
    assert (end["added"], end["removed"], end["unchanged"]) == (1, 2, 2)


def test_what_cannot_be_read_is_reported_and_left_alone(shared, docs):
    shared.events("ingest", docs, "--store", "unreadable")
    (docs / "cats.md").unlink()
    (docs / "cats.md").symlink_to("cats.md")  # unreadable for root, too
    done = shared.run("ingest", docs, "--store", "unreadable", code=1)
    assert "not read: docs/cats.md" in done.stderr
    assert "docs/cats.md" in shared.text("files", "unreadable")


def test_files_and_patterns_have_stable_names_and_remove_nothing(shared, docs):
    shared.events("ingest", docs / "cats.md", "--store", "single")
    end = shared.events("ingest", f"{docs}/sub/*.txt", docs / "cats.md", "--store", "single")[-1]
    assert (end["added"], end["unchanged"], end["removed"]) == (2, 1, 0)
    sources = {file["source"] for file in shared.json("files", "single")}
    assert sources == {str(docs / "cats.md"), str(docs / "sub" / "dogs.txt"), str(docs / "sub" / "owls.txt")}
    (docs.parent / "other" / "docs").mkdir(parents=True)
    both = docs, docs.parent / "other" / "docs"
    assert shared.error("ingest", *both, "--store", "single", code=2) == "same_folder_name"
    assert shared.error("ingest", f"{docs}/*.pdf", "--store", "single", code=3) == "path_not_found"


def folder_of(parent, **texts):
    folder = parent / "handbook"
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text)
    return folder


def test_another_folder_of_the_same_name_does_not_take_the_place_of_the_first(shared, tmp_path):
    texts = {name: f"The {name} of the first house." for name in ("attic", "cellar", "garden", "hall")}
    ours = folder_of(tmp_path / "ours", **texts)
    shared.events("ingest", ours, "--store", "houses")
    same_names = folder_of(tmp_path / "same", **{name: f"Another {name}." for name in texts})
    less = folder_of(tmp_path / "less", **{name: f"Another {name}." for name in ("attic", "cellar", "garden")})
    for theirs in (same_names, less):
        done = shared.run("ingest", theirs, "--store", "houses", code=2)
        assert str(ours) in done.stderr
        assert str(theirs) in done.stderr
        assert shared.error("ingest", theirs, "--store", "houses", code=2) == "another_folder"
    assert shared.events("ingest", ours, "--store", "houses")[-1]["unchanged"] == 4
    # Moved, with a small change: much the same is the same folder.
    moved = ours.parent.rename(tmp_path / "moved") / "handbook"
    (moved / "hall.md").write_text("The hall was painted.")
    done = shared.run("ingest", moved, "--store", "houses")
    assert f"came from {ours} on" in done.stderr
    assert "1 changed, 3 unchanged" in done.stdout
    assert "came from" not in shared.run("ingest", moved, "--store", "houses").stderr
    # A large change of the folder itself is no other folder.
    for name in texts:
        (moved / f"{name}.md").write_text(f"The new {name}.")
    assert shared.events("ingest", moved, "--store", "houses")[-1]["changed"] == 4
    end = shared.events("ingest", less, "--store", "houses", "--yes")[-1]
    assert (end["changed"], end["removed"]) == (3, 1)
    assert shared.error("ingest", moved, "--store", "houses", code=2) == "another_folder"


def test_a_file_below_a_synced_folder_is_that_folders_document(shared, docs):
    shared.events("ingest", docs, "--store", "below")
    (docs / "cats.md").write_text("# Cats\n\nCats sleep all day.\n")
    (docs / "new.md").write_text("Newts regrow their tails.\n")
    (docs / ".hidden.md").write_text("A hidden file that was named.\n")
    named = docs / "cats.md", docs / "sub" / "dogs.txt", docs / "new.md", docs / ".hidden.md"
    end = shared.events("ingest", *named, "--store", "below")[-1]
    assert (end["added"], end["changed"], end["unchanged"]) == (2, 1, 1)
    sources = {file["source"] for file in shared.json("files", "below")}
    synced = {"docs/cats.md", "docs/new.md", "docs/sub/dogs.txt", "docs/sub/owls.txt", "docs/trout.txt"}
    assert sources == {*synced, str(docs / ".hidden.md")}
    end = shared.events("ingest", docs, docs / "cats.md", "--store", "below")[-1]
    assert (end["added"], end["changed"], end["unchanged"], end["removed"]) == (0, 0, 5, 0)


def test_a_pattern_takes_folders_as_the_shell_does(shared, docs):
    end = shared.events("ingest", f"{docs}/*", "--store", "quoted")[-1]
    assert end["added"] == 4
    unquoted = shared.events("ingest", *sorted(docs.glob("*")), "--store", "quoted")[-1]
    assert (unquoted["added"], unquoted["unchanged"]) == (0, 4)
    sources = {file["source"] for file in shared.json("files", "quoted")}
    assert sources == {str(docs / "cats.md"), str(docs / "trout.txt"), "sub/dogs.txt", "sub/owls.txt"}
    assert shared.events("ingest", f"{docs}/s*", "--store", "only folders")[-1]["added"] == 2
    assert shared.events("ingest", f"{docs}/**", "--store", "all below")[-1]["added"] == 4
    assert {file["source"].split("/")[0] for file in shared.json("files", "all below")} == {"docs"}


def test_two_who_ingest_one_folder_at_once_are_each_told_of_every_document(shared, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.txt").write_text(f"Text number {n} about herons." if n else "")
    rag = Rag(tmp_path, tmp_path / "nothing", RAG_API_KEY=KEY, RAG_URL=shared.variables["RAG_URL"])
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(lambda _: rag.events("ingest", folder, "--store", "both", code=1)[-1], range(2)))
    for end in runs:
        # Who comes a moment later finds some there already: those are unchanged, and completed if they had not ended.
        assert 39 - end["unchanged"] <= end["completed"] <= 39
        assert [failed["source"] for failed in end["failed"]] == ["many/0.txt"]
    assert len(shared.json("files", "both")) == 40


def test_another_embedder_for_a_store_that_is_there_is_refused_by_name(shared, docs):
    made = shared.json("stores", "create", "spaces")
    assert made["embedder"] == "toy-384"
    for store in ("spaces", made["id"]):
        assert shared.error("ingest", docs, "--store", store, "--embedder", "nobody", code=2) == "unknown_name"
        done = shared.run("ingest", docs, "--store", store, "--embedder", "toy-384-b", code=2)
        assert "toy-384 " in done.stderr
        assert "toy-384-b " in done.stderr
    assert shared.json("files", "spaces") == []
    assert shared.events("ingest", docs, "--store", made["id"], "--embedder", "toy-384")[-1]["completed"] == 4
    assert shared.error("ingest", docs, "--store", "vs_" + "0" * 24, code=3) == "vector_store_not_found"


def test_failures_are_listed_retried_and_deleted(shared, docs):
    (docs / "empty.txt").write_text("")
    (docs / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    done = shared.run("ingest", docs, "--store", "failures", code=1)
    assert "docs/empty.txt: empty:" in done.stderr
    assert "docs/picture.png: unsupported_file:" in done.stderr
    assert "4 completed, 2 failed" in done.stdout
    failed = shared.json("files", "failures", "--state", "failed")
    assert {file["source"] for file in failed} == {"docs/empty.txt", "docs/picture.png"}
    assert shared.error("files", "failures", "--state", "faild", code=2) == "unknown_state"
    end = shared.events("retry", "failures", code=1)[-1]
    assert sorted(end["retried"]) == ["docs/empty.txt", "docs/picture.png"]
    assert len(end["failed"]) == 2
    assert shared.error("delete", "failures", "docs/trout.txt", "nothing", code=3) == "file_not_found"
    picture = next(file["id"] for file in failed if file["filename"] == "picture.png")
    shared.text("delete", "failures", "docs/empty.txt", picture)
    assert "empty.txt" not in shared.text("files", "failures")
    assert shared.json("status", "failures")["file_counts"]["total"] == 4


def test_questions(shared, docs):
    shared.events("ingest", docs, "--store", "questions")
    found = shared.text("search", "questions", "Which animals bark?", "--mode", "keyword", "--limit", "1")
    assert "Dogs bark" in found
    assert "relevance" in found
    nothing = json.dumps({"type": "eq", "key": "lang", "value": "en"})
    assert shared.run("search", "questions", "bark", "--filter", nothing, code=2).stderr
    assert shared.error("search", "questions", "bark", "--filter", "{", code=2) == "invalid_filter"
    said = shared.text("ask", "questions", "When do cats purr?")
    assert "Cats purr when they are content." in said
    assert "[1] Cats" in said
    *deltas, end = shared.events("ask", "questions", "When do cats purr?")
    assert deltas
    assert end["citations"][0]["quote"] in "# Cats\n\nCats purr when they are content.\n"
    packed = shared.json("context", "questions", "When do cats purr?", "--window", "2000")
    assert packed["ledger"]["prompt_tokens"] + packed["ledger"]["reserved_tokens"] <= 2000
    assert "Cats purr" in shared.text("context", "questions", "When do cats purr?", "--messages")
    assert "FATE" in shared.text("context", "questions", "When do cats purr?")
    assert [model["id"] for model in shared.json("models")] == ["extractive"]


def test_stores_and_status(shared):
    made = shared.json("stores", "create", "mine")
    assert shared.error("stores", "create", "mine", code=2) == "store_exists"
    assert made["id"] in {store["id"] for store in shared.json("stores")}
    assert shared.json("status")["runs_jobs"] is True
    assert shared.text("cancel", "mine") == "0 cancelled.\n"
    for empty in ("", "  "):
        assert shared.error("stores", "create", empty, code=2) == "invalid_value"
        assert shared.error("ingest", Path(__file__).parent, "--store", empty, code=2) == "invalid_value"
    assert shared.error("stores", "delete", "mine", code=2) == "confirmation_required"
    shared.json("stores", "delete", "mine", "--yes")
    assert shared.error("status", "mine", code=3) == "vector_store_not_found"


def test_keys_are_made_used_and_revoked(shared, tmp_path):
    made = shared.run("keys", "create", "bot", "--permission", "hr", "--days", "1", "--requests-per-minute", "99")
    secret = made.stdout.strip()
    assert secret.startswith("rag_")
    assert secret not in made.stderr
    url = shared.variables["RAG_URL"]
    bot = RagHere(tmp_path, tmp_path / "data", RAG_API_KEY=secret, RAG_URL=url)
    assert isinstance(bot.json("models"), list)
    assert bot.error("keys", "list", code=2) == "insufficient_scope"
    (checked,) = [check for check in bot.json("doctor")["checks"] if check["part"] == "server"]
    assert (checked["ok"], checked["found"].partition(";")[0]) == (True, "takes this key")
    assert bot.error("stores", "create", "bots", code=2) == "insufficient_scope"
    (key,) = [one for one in shared.json("keys", "list") if one["name"] == "bot"]
    assert (key["scopes"], key["permissions"], key["limits"]["requests_per_minute"]) == (["query"], ["hr"], 99)
    assert secret.startswith(key["prefix"])
    shared.run("keys", "revoke", key["id"])
    assert bot.error("models", code=2) == "invalid_api_key"
    listed = shared.text("keys", "list")
    assert "revoked" in next(line for line in listed.splitlines() if key["id"] in line)
    assert secret not in listed
    assert shared.error("keys", "revoke", "key_none", code=3) == "key_not_found"
    here = RagHere(tmp_path, tmp_path / "data")
    here.run("stores", "create", "s")
    told = here.json(
        "keys", "create", "k", "--scope", "query", "--scope", "ingest", "--store", "s", "--tenant", "default"
    )
    assert (told["scopes"], len(told["vector_store_ids"])) == (["ingest", "query"], 1)
    assert [one["id"] for one in here.json("keys", "list")] == [told["id"]]
    here.run("keys", "revoke", told["id"])
    # Over the data folder too, a key is good for what it is good for.
    limited = RagHere(tmp_path, tmp_path / "data", RAG_API_KEY=here.run("keys", "create", "x").stdout.strip())
    assert limited.error("keys", "list", code=2) == "insufficient_scope"


def test_permissions_are_given_to_what_is_ingested_also_to_what_was_there(tmp_path, docs):
    with server(tmp_path, tmp_path / "data") as (url, _):
        rag = RagHere(tmp_path, tmp_path / "elsewhere", RAG_URL=url)
        rag.run("ingest", docs, "--store", "pets", "--permission", "cats")
        tags = lambda: {tuple(file["permissions"]) for file in rag.json("files", "pets")}  # noqa: E731
        assert tags() == {("cats",)}
        (docs / "trout.txt").write_text("Trout rest.\n")
        rag.run("ingest", docs, "--store", "pets")
        assert tags() == {("cats",)}
        again = rag.events("ingest", docs, "--store", "pets", "--permission", "b", "--permission", "a")[-1]
        assert (again["unchanged"], again["embedded"]) == (4, 0)
        assert tags() == {("a", "b")}


def test_errors_say_what_to_do_in_the_code_of_their_family(shared, tmp_path):
    rag = RagHere(tmp_path, tmp_path / "data", RAG_API_KEY=KEY)
    url = shared.variables["RAG_URL"]
    assert rag.error("stores", "--url", url, "--key", "wrong", code=2) == "invalid_api_key"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        dead = f"http://127.0.0.1:{port}"
        assert rag.error("stores", "--url", dead, code=4) == "server_unreachable"
        rows = [check for check in rag.json("doctor", "--url", dead, code=1)["checks"] if check["ok"] is False]
        assert [(row["part"], row["name"]) for row in rows] == [("server", "server_unreachable")]
    assert rag.error("stores", "--url", "localhost:8000", code=2) == "bad_url"
    in_use = url.rsplit(":", 1)[1]
    assert Rag(tmp_path, tmp_path / "data").error("serve", "--port", in_use, code=2) == "address_unavailable"
    assert RagHere(tmp_path, tmp_path).error("serve", "--host", "0.0.0.0", code=2) == "key_required"
    assert rag.error("serve", "--url", "http://x", code=2) == "not_remote"
    in_passing = RagHere(tmp_path, tmp_path, RAG_URL="http://x")
    assert in_passing.error("serve", "--host", "0.0.0.0", code=2) == "key_required"
    (tmp_path / "file").write_text("")
    assert rag.error("status", "--data", tmp_path / "file", code=4) == "data_unavailable"
    rag_in_the_way = Rag(tmp_path, tmp_path / "file")
    assert rag_in_the_way.error("serve", "--port", "0", code=4) == "data_unavailable"
    (tmp_path / "bad.toml").write_text("nonsense = 1")
    assert rag.error("status", "--config", tmp_path / "bad.toml", code=2) == "bad_settings"


def test_beside_a_running_server_a_command_only_enqueues_and_the_server_stops_when_told(tmp_path, docs):
    with server(tmp_path, tmp_path / "data") as (url, process):
        rag = Rag(tmp_path, tmp_path / "data")
        assert rag.json("status", "--url", url)["runs_jobs"] is True
        assert rag.events("ingest", docs, "--store", "pets")[-1]["completed"] == 4
        assert rag.json("status", "--url", url)["stores"][0]["file_counts"]["completed"] == 4
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - started < 10
        assert "Traceback" not in process.stderr.read()


def test_doctor_tells_where_settings_come_from_and_no_secrets(tmp_path, monkeypatch):
    reranker = '[rerankers.words]\nprovider = "toy"\nmodel = "overlap"\n'
    (tmp_path / "rag.toml").write_text(f'[retrieval]\ntop_k = 7\nreranker = "words"\n[server]\nport = 1\n{reranker}')
    monkeypatch.chdir(tmp_path)
    rag = RagHere(tmp_path, tmp_path / "data", RAG_API_KEY=KEY, RAG_SERVER_PORT="8123")
    told = rag.json("doctor")
    settings = {entry["name"]: (entry["value"], entry["origin"]) for entry in told["settings"]}
    assert settings["retrieval.top_k"] == ("7", "rag.toml")
    assert settings["server.port"] == ("8123", "environment variable RAG_SERVER_PORT")
    assert settings["server.api_key"] == ("********", "environment variable RAG_API_KEY")
    assert settings["retrieval.mode"] == ("hybrid", "default")
    assert settings["retrieval.min_relevance"] == ("0.5", "default")
    checks = {(check["part"], check["name"]): check for check in told["checks"]}
    assert checks["embedder", "toy-384 (toy)"]["ok"] is True
    assert checks["rerankers", "words (toy)"]["found"] == "overlap, in use"
    assert checks["settings", "retrieval.reranker"]["ok"] is True
    assert checks["tokenizers", "o200k_base"]["found"] == "exact"
    assert ("sandbox", "network") in checks


def test_doctor_tells_how_vectors_are_computed_and_how_well(tmp_path, monkeypatch):
    monkeypatch.setenv("RAG_CACHE", str(tmp_path))
    settings = load_settings(environment={})
    assert f"compiled at first use, into {tmp_path}" in build_told(settings).found
    spec = EmbedderRegistry({}).spec("default")
    order = compiled.order_of(spec, resolve_model(spec.model))
    folder = tmp_path / "encoders" / order.key
    folder.mkdir(parents=True)
    facts = ModelFacts(384, "mean", "", "", 256, 512)
    compiled.write(folder, compiled.Manifest("onnx-int8", "", Agreement(0.997, 0.98, 0.95), facts, {}))
    told = build_told(settings)
    assert told.ok is True
    assert told.found.startswith("onnx-int8, agreement with the original: cosine 0.99700 in the mean and 0.98000")
    compiled.write(folder, compiled.Manifest("torch-fp32", "it cannot be compiled (so far)", None, facts, {}))
    assert (build_told(settings).ok, build_told(settings).advice) == (None, "it cannot be compiled (so far)")
    tables = {"default": {"provider": "sentence-transformers", "model": spec.model, "device": "cuda"}}
    assert "by torch on cuda" in build_told(Settings(embedders=tables)).found


def build_told(settings):
    return next(check for check in doctor._embedder(settings) if check.name == "build")


def test_doctor_tells_of_settings_that_name_nothing_and_of_variables_that_are_no_settings(tmp_path):
    rag = RagHere(tmp_path, tmp_path / "data", RAG_VECTOR_INDEX="nosuch", RAG_PORT="1")
    checks = {(check["part"], check["name"]): check for check in rag.json("doctor", code=1)["checks"]}
    assert checks["settings", "vector_index"]["ok"] is False
    assert "environment variable RAG_VECTOR_INDEX" in checks["settings", "vector_index"]["advice"]
    assert checks["settings", "keyword_index"]["ok"] is True
    assert checks["settings", "RAG_PORT"]["ok"] is None
    assert rag.error("stores", code=2) == "unknown_name"


def test_doctor_tells_of_catalog_and_blobs_without_their_secrets(tmp_path, postgres, s3):
    rag = RagHere(tmp_path, tmp_path / "data", RAG_CATALOG=postgres.url(), RAG_BLOBS=make_bucket(s3, "doctor"))
    told = rag.json("doctor")
    checks = {check["part"]: check for check in told["checks"]}
    assert checks["catalog"]["name"] == f"postgresql://postgres:***@127.0.0.1:{postgres.port}/postgres"
    assert checks["catalog"]["found"].startswith("postgresql 1")
    assert (checks["blobs"]["name"], checks["blobs"]["ok"]) == ("s3://doctor/some/prefix", True)
    settings = {entry["name"]: entry["value"] for entry in told["settings"]}
    assert settings["catalog"] == settings["blobs"] == "********"
    for secret in (PASSWORD, quote(PASSWORD, safe=""), SECRET):
        assert secret not in json.dumps(told)


def test_doctor_tells_of_a_catalog_and_blobs_that_do_not_answer(tmp_path):
    catalog, blobs = "postgresql://u:canary@127.0.0.1:9/x", "s3://b?endpoint_url=http://127.0.0.1:9&key=k&secret=canary"
    rag = RagHere(tmp_path, tmp_path / "data", RAG_CATALOG=catalog, RAG_BLOBS=blobs)
    told = rag.json("doctor", code=1)
    checks = {check["part"]: check for check in told["checks"]}
    assert (checks["catalog"]["name"], checks["catalog"]["ok"]) == ("catalog_unavailable", False)
    assert (checks["blobs"]["name"], checks["blobs"]["ok"]) == ("blobs_unavailable", False)
    assert "canary" not in json.dumps(told)
    assert rag.error("stores", code=4) == "catalog_unavailable"


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is readable to root")
def test_what_this_user_may_not_read_is_told_in_our_own_form(tmp_path):
    rag = RagHere(tmp_path, tmp_path / "data")
    for path, refused in ((tmp_path / "locked", "folder_unreadable"), (tmp_path / "locked.md", "file_unreadable")):
        path.mkdir() if refused.startswith("folder") else path.write_text("text")
        path.chmod(0)
        assert rag.error("ingest", path, "--store", "s", code=2) == refused
        path.chmod(0o700)


def test_a_move_is_told_in_events_and_refuses_in_its_own_form(tmp_path, docs):
    here = Rag(tmp_path, tmp_path / "data")
    here.run("ingest", docs, "--store", "docs")
    assert here.error("move", code=2) == "nothing_to_move"
    assert here.error("move", "--cancel", code=2) == "no_move"
    assert here.error("move", "--to-catalog", "oracle://a", code=2) == "unknown_catalog"
    assert here.error("move", "--to-vector-index", "none", code=2) == "unknown_name"
    assert here.error("move", "--to-data", "new", "--url", "http://127.0.0.1:1", code=2) == "not_remote"
    events = here.events("move", "--to-data", tmp_path / "new", "--to-vector-index", "flat")
    assert {event["event"] for event in events} == {"progress", "end"}
    end = events[-1]
    assert end["embedded"] == 0
    assert end["tables"]["chunks"]["rows"] > 0
    assert f'data = "{tmp_path / "new"}"' in end["settings"]
    assert here.events("move", "--to-data", tmp_path / "new", "--to-vector-index", "flat")[-1]["settings"]
    assert here.error("stores", "create", "late", code=2) == "moved"
    there = Rag(tmp_path, tmp_path / "new")
    assert there.json("search", "docs", "cats")["data"]


def test_an_archive_goes_out_and_comes_in(tmp_path, docs):
    here = Rag(tmp_path, tmp_path / "data")
    here.run("ingest", docs, "--store", "docs")
    end = here.events("export", "docs", "docs.zip")[-1]
    assert end["documents"] > 0
    assert end["bytes"] == (tmp_path / "docs.zip").stat().st_size
    assert here.error("export", "docs", "docs.zip", code=2) == "file_exists"
    assert here.error("export", "nothing", "other.zip", code=3) == "vector_store_not_found"
    assert here.error("import", "docs.zip", code=2) == "store_exists"
    assert here.events("import", "docs.zip", "--name", "again")[-1]["name"] == "again"
    assert here.json("search", "again", "cats")["data"]
