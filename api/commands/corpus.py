"""What is in the stores and where it stands: `status`, `stores`, `files`, `delete`, `retry`, `cancel`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from api.client import Client, Json
from api.commands.call import FAILED, Call, open_client
from api.commands.ingest import Outcome, await_end
from api.commands.output import print_json, print_table, print_text
from api.commands.progress import Bar
from indexes.errors import ChangeRequest, NotThere

_COUNTS = ("total", "completed", "in_progress", "failed", "cancelled")
_STATES = ("queued", "parsing", "splitting", "embedding", "in_progress", "completed", "failed", "cancelled")


def show_status(call: Call, store: str | None) -> None:
    """What the server does, or how far one store is."""
    with open_client(call) as client:
        if store is not None:
            _show_store(call, client, store)
            return
        status, stores = client.status(), list(client.stores())
    if call.json:
        print_json({**status, "stores": stores})
        return
    runs = "runs the jobs" if status["runs_jobs"] else "jobs run elsewhere, or wait for the next ingest or serve"
    print_text(f"{status['waiting_documents']:,} documents wait or are at work ({runs}).")
    print_text(f"Embedder {status['embedder']}, model {status['model']}.")
    _print_stores(stores)


def _show_store(call: Call, client: Client, name: str) -> None:
    store = client.store(name)
    moving = list(client.files(store["id"], "in_progress"))
    if call.json:
        print_json({**store, "in_progress_files": moving})
        return
    _print_stores([store])
    for file in moving[:20]:
        progress = file["progress"]
        print_text(f"  {file['state']}: {file['source']} ({progress['chunks_done']}/{progress['chunks_total']} chunks)")
    if len(moving) > 20:
        print_text(f"  and {len(moving) - 20:,} more")


def list_stores(call: Call) -> None:
    """Every store with its counts."""
    with open_client(call) as client:
        stores = list(client.stores())
    if call.json:
        print_json(stores)
    else:
        _print_stores(stores)


def _print_stores(stores: Sequence[Json]) -> None:
    if not stores:
        print_text("There are no vector stores. `rag ingest PATH --store NAME` makes one.")
        return
    headings = ["NAME", "ID", "EMBEDDER", *(name.upper() for name in _COUNTS), "BYTES"]
    print_table(
        headings,
        (
            [s["name"], s["id"], s["embedder"], *(s["file_counts"][n] for n in _COUNTS), s["usage_bytes"]]
            for s in stores
        ),
    )


def create_store(call: Call, name: str, embedder: str | None) -> None:
    """A new empty store."""
    with open_client(call) as client:
        if any(store["name"] == name for store in client.stores()):
            raise ChangeRequest(f"There is a store named {name!r} already.", code="store_exists", param="name")
        store = client.create_store(name, embedder)
    if call.json:
        print_json(store)
    else:
        print_text(f"Made {store['name']} ({store['id']}), embedded by {store['embedder']}.")


def delete_store(call: Call, name: str, *, yes: bool) -> None:
    """Forget a store with its documents, which must be said twice."""
    with open_client(call) as client:
        store = client.store(name)
        if not yes:
            raise ChangeRequest(
                f"This deletes {store['name']!r} with its {store['file_counts']['total']:,} documents. Say --yes if "
                "it is meant.",
                code="confirmation_required",
            )
        deleted = client.delete_store(store["id"])
    if call.json:
        print_json(deleted)
    else:
        print_text(f"Deleted {store['name']} ({store['id']}).")


def list_files(call: Call, store: str, state: str | None) -> None:
    """The documents of a store. Raises ChangeRequest (`unknown_state`) for a state that no document can have."""
    if state not in (None, *_STATES):
        raise ChangeRequest(
            f"There is no state {state!r}. Known: {', '.join(_STATES)}.", code="unknown_state", param="state"
        )
    with open_client(call) as client:
        files = [
            file for file in client.files(client.store(store)["id"]) if state in (None, file["state"], file["status"])
        ]
    if call.json:
        print_json(files)
        return
    rows = ([f["id"], f["state"], f["progress"]["chunks_total"], f["source"], _why(f)] for f in files)
    print_table(["ID", "STATE", "CHUNKS", "SOURCE", "ERROR"], rows)


def _why(file: Json) -> str:
    error = file["last_error"]
    return f"{error['detail']}: {error['message']}" if error else ""


def delete_files(call: Call, store: str, names: Sequence[str]) -> None:
    """Take documents out of a store, by file id or source."""
    with open_client(call) as client:
        files = _named(client, store, names)
        for file in files:
            client.delete_file(file["vector_store_id"], file["id"])
    _report(call, "deleted", files)


def retry_files(call: Call, store: str, names: Sequence[str], *, wait: bool) -> None:
    """Try failed and cancelled documents again; all failed ones when none is named. Exits with 1 if one fails."""
    started = time.monotonic()
    with open_client(call, jobs=wait) as client:
        chosen = _chosen(client, store, names, "failed")
        files = [client.retry(file["vector_store_id"], file["id"]) for file in chosen]
        outcome = Outcome(retried=[file["source"] for file in files])
        if files and wait:
            with Bar(len(files), call.json) as bar:
                await_end(client, files[0]["vector_store_id"], outcome.retried, outcome, bar)
    if call.json:
        end = {"event": "end", "retried": outcome.retried, "completed": outcome.completed, "failed": outcome.failed}
        print_json({**end, "seconds": round(time.monotonic() - started, 3)}, one_line=True)
    else:
        ends = f"; {outcome.completed:,} completed, {len(outcome.failed):,} failed" if wait else ""
        print_text(f"{len(files):,} tried again{ends}.")
    if outcome.failed:
        raise SystemExit(FAILED)


def cancel_files(call: Call, store: str, names: Sequence[str]) -> None:
    """Stop work on documents; on all that wait or are at work when none is named."""
    with open_client(call) as client:
        files = []
        for file in _chosen(client, store, names, "in_progress"):
            stopped = _unless_over(lambda file=file: client.cancel(file["vector_store_id"], file["id"]), bool(names))  # type: ignore[misc]
            files += [stopped] if stopped else []
    _report(call, "cancelled", files)


def _unless_over(cancel: Callable[[], Json], named: bool) -> Json | None:
    """What was cancelled; None where it ended before we came, unless it was asked for by name."""
    try:
        return cancel()
    except ChangeRequest as error:
        if named or error.code != "nothing_to_cancel":
            raise
        return None


def _chosen(client: Client, store: str, names: Sequence[str], status: str) -> list[Json]:
    return _named(client, store, names) if names else list(client.files(client.store(store)["id"], status))


def _named(client: Client, store: str, names: Sequence[str]) -> list[Json]:
    """Files by id or source. Raises NotThere for the first that the store lacks, before anything is done."""
    listed = list(client.files(client.store(store)["id"]))
    known = {file["source"]: file for file in listed} | {file["id"]: file for file in listed}
    for name in names:
        if name not in known:
            raise NotThere(
                f"The store {store!r} has no document {name!r}. `rag files {store}` lists them.", code="file_not_found"
            )
    return [known[name] for name in dict.fromkeys(names)]


def _report(call: Call, done: str, files: Sequence[Json]) -> None:
    if call.json:
        print_json({done: [{"id": file["id"], "source": file["source"]} for file in files]})
    else:
        print_text(f"{len(files):,} {done}.")
