"""`rag serve`: the HTTP API in the foreground, with a store of the manual to try it on where asked."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.app import api_key, check_binding
from api.client import Client, remote_client
from api.commands.call import Call, settings_of, start_logging
from api.commands.output import note, print_json, print_text
from api.server import Server, bound_socket
from indexes.errors import ChangeRequest, RagError
from ingest.sync import plan, scan
from rag.settings import Settings

MANUAL = Path(__file__).resolve().parents[1] / "manual"
MANUAL_STORE = "manual"
QUESTION = "Which file formats can be ingested?"


def run(call: Call, flags: Mapping[str, Any], *, with_manual: bool) -> None:
    """Serve until SIGTERM or SIGINT. `flags` are settings given on the command line; None means not given."""
    # Whoever has RAG_URL set for the other commands may start a server all the same.
    if call.url is not None and call.url != os.environ.get("RAG_URL"):
        raise ChangeRequest(
            "A server runs in this process: leave --url out, and say where it listens with --host and --port.",
            code="not_remote",
        )
    settings = settings_of(call, flags)
    if with_manual and settings.server.role == "worker":
        raise ChangeRequest(
            "A worker takes no requests, so it cannot fill a store. Start the manual with another role."
        )
    check_binding(settings)
    start_logging(settings.log_level)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    # uvicorn raises a signal again once it has stopped, so that callers see it; here that is the end of the program.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    listener = bound_socket(settings.server.host, settings.server.port)
    server = Server(settings, jobs=True)
    url = _url(settings.server.host, listener.getsockname()[1])
    threading.Thread(target=_welcome, args=(call, settings, server, url, with_manual), daemon=True).start()
    server.run(sockets=[listener])
    server.require_started()


def _is_news(record: logging.LogRecord) -> bool:
    """Not the traceback of an error of ours, which is told in a line of its own."""
    of_ours = record.exc_info and isinstance(record.exc_info[1], RagError)
    return not of_ours and f"\n{RagError.__module__}." not in record.getMessage()


def _url(host: str, port: int) -> str:
    """An address at which this machine reaches a server that is bound to `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _welcome(call: Call, settings: Settings, server: Server, url: str, with_manual: bool) -> None:
    """Say where the server is; then, if asked, fill the store of the manual and show how to ask it."""
    while not server.started:
        if server.should_exit or server.fault is not None:
            return
        time.sleep(0.02)
    if call.json:
        print_json({"event": "listening", "url": url}, one_line=True)
    else:
        print_text(f"Listening on {url}")
        sys.stdout.flush()
    if with_manual:
        try:
            with remote_client(url, api_key(settings)) as client:
                _fill_manual(client)
        except RagError as error:
            note(f"The manual could not be taken in: {error.message}")
            return
        _show_example(call, settings, url)


def _fill_manual(client: Client) -> None:
    """Make the store equal to the packaged pages, and wait until it is."""
    store = client.create_store(MANUAL_STORE, only_if_absent=True)
    stored = {file["source"]: file for file in client.files(store["id"])}
    found = scan(MANUAL)
    todo = plan(found, {source: file["sha256"] for source, file in stored.items()})
    client.remember_folder(store["id"], found.prefix, found.address, replace=True)
    for page in (*todo.add, *todo.replace):
        with page.path.open("rb") as data:
            client.put_file(store["id"], page.path.name, data, page.source)
    for source in todo.remove:
        client.delete_file(store["id"], stored[source]["id"])
    while client.store(store["id"])["file_counts"]["in_progress"]:
        time.sleep(0.1)


def _show_example(call: Call, settings: Settings, url: str) -> None:
    key = " -H 'Authorization: Bearer '\"$RAG_API_KEY\"" if api_key(settings) else ""
    command = (
        f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d "
        f'\'{{"model": "{settings.model}", "vector_store_ids": ["{MANUAL_STORE}"], '
        f'"messages": [{{"role": "user", "content": "{QUESTION}"}}]}}\''
    )
    if call.json:
        print_json({"event": "ready", "url": url, "store": MANUAL_STORE, "try": command}, one_line=True)
        return
    print_text(f"The store {MANUAL_STORE!r} holds the project's own manual. Try:\n\n  {command}\n")
    sys.stdout.flush()
