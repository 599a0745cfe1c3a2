"""Requests made from the interface's own schema against a real server with a filled store; every answer must keep it.

    python -m tests.campaigns.schema --cases 10000 --seed 1

schemathesis generates them, valid and not, in all its phases and with all its default checks, of which four know more
about this interface: see `schema_checks`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.openapi_examples import FILE, QUESTIONS, STORE
from tests.api.running import fill
from tests.installations import one_process, running

KEY = "sesame"
REFINED = (
    "positive_data_acceptance",
    "negative_data_rejection",
    "response_schema_conformance",
    "ensure_resource_availability",
)
CHECKS = "tests.campaigns.schema_checks"


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    cases: int
    operations: int
    failures: list[str]
    log: str


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server that asks for a key."""
    with running(one_process(folder, {"RAG_EMBEDDER": "toy-384", "RAG_API_KEY": KEY})) as installation:
        url, key = installation.doors[0], {"Authorization": f"Bearer {KEY}"}
        # The first one compiles the model, which takes longer than any other request may.
        body = {"model": "default", "input": "a lamp"}
        httpx.post(f"{url}/v1/embeddings", json=body, headers=key, timeout=180, trust_env=False).raise_for_status()
        yield url


def run(url: str, folder: Path, seed: int, *options: str) -> Outcome:
    """One run of schemathesis over a server's schema, whose examples stand for a store that is filled for it."""
    key = f"Bearer {KEY}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"Authorization": key}) as http:
        corpus = fill(http, STORE)
        line = {"question": "How long lasts a battery?", "labels": [{"document": corpus.files["battery.md"]}]}
        http.post("/v1/question_sets", params={"name": QUESTIONS}, content=json.dumps(line | {"split": "dev"}))
    there = {STORE: corpus.store, FILE: corpus.files["returns.md"]}
    report = folder / f"schemathesis-{seed}.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *options]
    command += ["--header", f"Authorization: {key}"]
    command += ["--seed", str(seed), "--exclude-checks", ",".join(REFINED), "--continue-on-failure"]
    command += ["--generation-database", "none", "--no-color", "--report", "json", "--report-json-path", str(report)]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": CHECKS,
        "SCHEMA_EXAMPLES": json.dumps(there),
        "PYTHONPATH": os.getcwd(),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert not found["errors"], done.stdout
    failures = [f"{failure['title']}: {', '.join(failure['operations'])}" for failure in found["failures"]]
    return Outcome(found["test_cases"]["generated"], found["operations"]["tested"], failures, done.stdout)


def campaign(cases: int, seed: int, folder: Path) -> dict[str, Any]:
    """Runs with new seeds until as many cases were made."""
    made, runs, operations, failures = 0, 0, 0, Counter[str]()
    with served(folder) as url:
        while made < cases:
            outcome = run(url, folder, seed + runs, "--max-examples", "40")
            made, runs, operations = made + outcome.cases, runs + 1, outcome.operations
            failures.update(outcome.failures)
            if outcome.failures:
                print(outcome.log)
        alive = httpx.get(f"{url}/readyz", timeout=60, trust_env=False).status_code == 200
    return {"cases": made, "operations": operations, "failures": dict(failures), "ready afterwards": alive}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-schema-") as scratch:
        record = campaign(arguments.cases, arguments.seed, Path(scratch))
    print(json.dumps(record, indent=2))
    sys.exit(bool(record["failures"]) or not record["ready afterwards"])
