"""Two public corpora through the running server, as a person would ingest them: `rag serve`, `rag ingest FOLDER`.

    python -m tests.campaigns.corpora [--embedder default] [--out OUT.json]

`multiformat` must end with every file that holds text completed; `hostile_docs` must end at all, each file within
60 s of its turn, with the server alive, nothing written outside scratch, and a good file that queues behind it
answering. What came of each file is compared with what is known of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.parse_corpora import snapshot
from tests.campaigns.kills import Server, free_port
from tests.data import data_root
from tests.ingest.test_corpora import LISTED, WITHOUT_TEXT

GOOD = "# The good file\n\nThe harbour master keeps the spare lantern behind the blue door.\n"
EXPECTED_IN_DATA = {"blobs", "catalog.db", "catalog.db-shm", "catalog.db-wal", "jobs.db", "jobs.db-shm", "jobs.db-wal"}
EXPECTED_IN_DATA |= {"jobs.lock", "scratch", "views"}


class Watch(threading.Thread):
    """Looks at a store's files again and again, and keeps how long each was being parsed."""

    def __init__(self, url: str, store: str) -> None:
        super().__init__(daemon=True)
        self._url, self._store = url, store
        self.parsing: dict[str, float] = {}
        """Seconds from the first look that saw a file in parsing to the first that did not."""
        self.stop = threading.Event()

    def run(self) -> None:
        begun: dict[str, float] = {}
        with httpx.Client(base_url=self._url, timeout=60.0, trust_env=False) as http:
            while not self.stop.wait(0.2):
                for file in all_files(http, self._store):
                    name, now = file["source"], time.monotonic()
                    if file["state"] == "parsing":
                        begun.setdefault(name, now)
                    elif name in begun and name not in self.parsing:
                        self.parsing[name] = now - begun[name]


def all_files(http: httpx.Client, store: str) -> list[dict[str, Any]]:
    """Every file of a store; none while there is no such store."""
    found: list[dict[str, Any]] = []
    while True:
        after = {"after": found[-1]["id"]} if found else {}
        answer = http.get(f"/v1/vector_stores/{store}/files", params={"limit": 100, "order": "asc", **after})
        if answer.status_code == 404:
            return found
        page = answer.raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found


def ingest(url: str, folder: Path, store: str) -> tuple[int, dict[str, Any]]:
    """What `rag ingest` exits with and reports."""
    command = [sys.executable, "-c", "from api.cli import main; main()", "ingest", str(folder), "--store", store]
    done = subprocess.run([*command, "--json", "--url", url], capture_output=True, text=True, timeout=3000, check=False)
    assert done.stdout.strip(), done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1])


def run_corpus(server: Server, name: str, embedder: str) -> dict[str, Any]:
    """Ingest one corpus, with the good file sent while it is under way."""
    folder, store = data_root() / name / "files", name
    with httpx.Client(base_url=server.url, timeout=60.0, trust_env=False) as http:
        http.post("/v1/vector_stores", json={"name": store, "embedder": embedder}).raise_for_status()
        watch = Watch(server.url, store)
        watch.start()
        good = threading.Timer(3.0, send_good, (server.url, store))
        good.start()
        began = time.monotonic()
        code, report = ingest(server.url, folder, store)
        good.join()
        while any(file["state"] in ("queued", "parsing", "splitting", "embedding") for file in all_files(http, store)):
            time.sleep(0.2)
        seconds = time.monotonic() - began
        watch.stop.set()
        watch.join()
        files = [file for file in all_files(http, store) if file["source"] != "good.md"]
        found = http.post(f"/v1/vector_stores/{store}/search", json={"query": "spare lantern harbour master"}).json()
    slowest = sorted(((round(took, 1), source) for source, took in watch.parsing.items()), reverse=True)[:3]
    return {
        "exit": code,
        "reported": {key: value for key, value in report.items() if isinstance(value, int | float)},
        "files": len(files),
        "seconds": round(seconds),
        "outcomes": dict(Counter(outcome(file) for file in files)),
        "slowest in parsing, s": slowest,
        "good file answers": any("blue door" in hit["content"][0]["text"] for hit in found["data"]),
        "wrong": [wrong for file in files if (wrong := judge(name, file))],
    }


def send_good(url: str, store: str) -> None:
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as http:
        file = http.post("/v1/files", files={"file": ("good.md", GOOD)}, data={"purpose": "assistants"}).json()
        http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file["id"], "source": "good.md"})


def outcome(file: dict[str, Any]) -> str:
    return str(file["last_error"]["detail"] if file["state"] == "failed" else file["state"])


def judge(corpus: str, file: dict[str, Any]) -> str | None:
    """What is wrong with a file's end, if anything."""
    path, came = Path(file["source"]), outcome(file)
    listed = path.suffix.lower().lstrip(".") in LISTED
    if came in ("server_error", "parse_timeout", "cancelled"):
        return f"{path}: {came}"
    if corpus == "multiformat":
        right = "no_text" if path.name in WITHOUT_TEXT else "completed" if listed else None
        if right and came != right:
            return f"{path}: {came}, not {right} ({file['last_error']})"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", default="default")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    watched = [data_root() / "multiformat", data_root() / "hostile_docs", Path("ingest"), Path("api"), Path("/etc")]
    before = snapshot(watched)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = Server(data, free_port())
        server.start()
        report: dict[str, Any] = {"embedder": chosen.embedder}
        try:
            for name in ("multiformat", "hostile_docs"):
                report[name] = run_corpus(server, name, chosen.embedder)
                assert server.process is not None
                report[name]["server lives"] = server.process.poll() is None
        finally:
            server.kill(15)
        report["left in scratch"] = [p.name for p in (data / "scratch").iterdir() if p.name != "parser.log"]
        report["unexpected in data"] = sorted({p.name for p in data.iterdir()} - EXPECTED_IN_DATA)
        report["beside data"] = sorted(os.listdir(folder))
    after = snapshot(watched)
    changed = [path for path in after.keys() | before.keys() if after.get(path) != before.get(path)]
    report["changed outside"] = [path for path in changed if ".pyc" not in path]
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
