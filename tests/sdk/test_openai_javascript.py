"""The same for OpenAI's JavaScript SDK, which is installed from npm once, outside of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import KEY, Served

VERSION = "7.57.0"
SCRIPT = Path(__file__).with_name("openai_javascript.mjs")
STEPS = ["upload and poll", "list", "search", "chat", "models", "errors"]
LATER = {
    "/v1/vector_stores/{vector_store_id}/file_batches": "batch",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
}
"""Steps for routes that a server may not have."""


@pytest.fixture(scope="module")
def installed() -> Path:
    """A folder with the SDK in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node.js here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rag-tests" / f"openai-{VERSION}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"openai@{VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not install the SDK in time: is there a registry?")
        if done.returncode != 0:
            pytest.skip(f"npm could not install the SDK: {done.stderr[-300:]}")
        (folder / "done").touch()
    return folder


def test_everything_that_a_bot_does(installed: Path, served: Served) -> None:
    # Modules are looked for beside the script.
    script = shutil.copy(SCRIPT, installed)
    arguments = [served.base_url, KEY, json.dumps(sorted(served.paths))]
    done = subprocess.run(["node", script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = [*STEPS, *(step for path, step in LATER.items() if path in served.paths), "delete"]
    assert done.stdout.splitlines() == expected
