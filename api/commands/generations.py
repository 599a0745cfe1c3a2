"""`rag generations`: build another generation beside the live one, promote it, go back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from api.client import Client, Json
from api.commands.call import FAILED, Call, open_client
from api.commands.output import print_json, print_table, print_text
from api.commands.progress import stages

LOOK_EVERY = 0.25
"""Seconds between two looks at how far a generation is."""


def list_generations(call: Call, store: str) -> None:
    """Every generation of a store."""
    with open_client(call) as client:
        found = client.generations(store)
    if call.json:
        print_json(found)
        return
    headings = ["ID", "STATE", "EMBEDDER", "MODEL", "INDEXES", "DOCUMENTS", "LAG", "LEFT"]
    print_table(headings, [_row(one) for one in found])


def show_generation(call: Call, store: str, generation: str) -> None:
    """One generation and what was done to it."""
    with open_client(call) as client:
        found = client.generation(store, generation)
    if call.json:
        print_json(found)
        return
    _print(found)
    for event in found["events"] or ():
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["created_at"]))
        by = "by itself" if event["by"] is None else f"by {event['by'] or 'the operator'}"
        said = {name.replace("_", " "): value for name, value in event["detail"].items() if value}
        detail = "".join(f"; {name}: {value}" for name, value in said.items())
        print_text(f"  {when} {event['event'].replace('_', ' ')} {by}{detail}")


def create_generation(call: Call, store: str, body: Mapping[str, Any], *, wait: bool) -> None:
    """Begin a generation, and wait until it is ready. Exits with 1 if it fails."""
    with open_client(call, jobs=wait) as client:
        made = client.create_generation(store, {name: value for name, value in body.items() if value is not None})
        if wait:
            made = _await_end(call, client, store, made)
    _told(call, made)


def promote_generation(call: Call, store: str, generation: str, *, force: bool, wait: float | None) -> None:
    """Let a generation answer."""
    _act(call, lambda client: client.promote_generation(store, generation, {"force": force, **_waiting(wait)}))


def roll_back(call: Call, store: str, wait: float | None) -> None:
    """Let the generation answer again that was live last."""
    _act(call, lambda client: client.roll_back(store, _waiting(wait)))


def mirror_generation(call: Call, store: str, generation: str, share: float) -> None:
    """Ask a generation a share of the questions too."""
    _act(call, lambda client: client.mirror_generation(store, generation, share))


def change_generation(call: Call, store: str, generation: str, what: str) -> None:
    """Pause, resume or retire a generation."""
    _act(call, lambda client: client.change_generation(store, generation, what))


def _act(call: Call, act: Callable[[Client], Json]) -> None:
    # With the jobs running here where nobody else runs them: what came last is to be filled in.
    with open_client(call, jobs=True) as client:
        _told(call, act(client))


def _waiting(seconds: float | None) -> dict[str, float]:
    return {} if seconds is None else {"wait_seconds": seconds}


def _await_end(call: Call, client: Client, store: str, made: Json) -> Json:
    with stages(as_json=call.json) as tell:
        while made["state"] == "building" and not made["paused"]:
            time.sleep(LOOK_EVERY)
            made = client.generation(store, made["id"])
            documents = (made["progress"] or {}).get("documents")
            if documents:
                tell("building", documents["done"], documents["total"])
    return made


def _told(call: Call, generation: Json) -> None:
    if call.json:
        print_json(generation)
    else:
        _print(generation)
    if generation["state"] == "failed":
        raise SystemExit(FAILED)


def _print(generation: Json) -> None:
    space, error = generation["space"], generation["last_error"]
    paused = ", paused" if generation["paused"] else ""
    print_text(
        f"{generation['id']}: {generation['state']}{paused}; {generation['embedder']} ({space['model']}, "
        f"{space['dimension']} dimensions, space {space['fingerprint'][:12]}), {_indexes(generation)}."
    )
    if error:
        print_text(f"  {error['code']}: {error['message']}")
    if generation["progress"]:
        documents, lag, left = _progress(generation)
        print_text(f"  {documents} documents, {lag} changes behind{f', {left} left' if left else ''}.")
    if generation["mirror"]:
        print_text(f"  {_mirrored(generation['mirror'])}")


def _row(generation: Json) -> list[object]:
    state = generation["state"] + (" (paused)" if generation["paused"] else "")
    named = generation["id"], state, generation["embedder"], generation["space"]["model"], _indexes(generation)
    return [*named, *_progress(generation)]


def _progress(generation: Json) -> tuple[str, str, str]:
    """Documents of documents, changes that are lacking, and the time that is left."""
    progress = generation["progress"]
    if not progress:
        return "", "", ""
    documents, left = progress["documents"], progress["seconds_left"]
    told = "" if not left or generation["state"] == "live" else f"{left:,.0f} s"
    return f"{documents['done']:,}/{documents['total']:,}", f"{progress['lag']:,}", told


def _mirrored(mirror: Json) -> str:
    told = f"Asked {mirror['share']:.0%} of the questions too; {mirror['questions']:,} so far"
    live, here = mirror["live_ms"], mirror["mirrored_ms"]
    if live and here:
        told += (
            f", {mirror['overlap']:.1%} of the hits the same; p50 {here['p50']:.1f} ms (live {live['p50']:.1f}), "
            f"p95 {here['p95']:.1f} ms (live {live['p95']:.1f})"
        )
    return told + "".join(f"; {code} {number:,} times" for code, number in mirror["errors"].items()) + "."


def _indexes(generation: Json) -> str:
    return f"{generation['vector_index']} and {generation['keyword_index']}"
