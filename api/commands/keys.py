"""`rag keys`: make, list and revoke API keys."""

from __future__ import annotations

import time
from typing import Any

from api.client import Json
from api.commands.call import Call, open_client
from api.commands.output import note, print_json, print_table, print_text

DAY = 86_400


def create_key(call: Call, body: dict[str, Any], days: float | None) -> None:
    """A new key. Its secret is printed alone on stdout, so that it can be caught, and is not told again."""
    if days is not None:
        body = {**body, "expires_at": int(time.time() + days * DAY)}
    with open_client(call) as client:
        key = client.create_key(body)
    if call.json:
        print_json(key)
        return
    note(f"{key['name']} ({key['id']}), {_good_for(key)}. The key is shown this once:")
    print_text(key["secret"])


def list_keys(call: Call) -> None:
    """Every key that may be managed, the newest last."""
    with open_client(call) as client:
        keys = list(client.keys())
    if call.json:
        print_json(keys)
        return
    headings = ["NAME", "ID", "TENANT", "BEGINS", "SCOPES", "STATE", "LAST USED"]
    rows = ([k["name"], k["id"], k["tenant"], k["prefix"], ",".join(k["scopes"]), _state(k), _used(k)] for k in keys)
    print_table(headings, rows)


def revoke_key(call: Call, key_id: str) -> None:
    """Let a key be good for nothing."""
    with open_client(call) as client:
        revoked = client.revoke_key(key_id)
    if call.json:
        print_json(revoked)
    else:
        print_text(f"Revoked {revoked['id']}.")


def _good_for(key: Json) -> str:
    stores = "all stores" if key["vector_store_ids"] is None else f"{len(key['vector_store_ids'])} stores"
    return f"tenant {key['tenant']}, scopes {', '.join(key['scopes'])}, {stores}"


def _state(key: Json) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    return "expired" if (key["expires_at"] or time.time() + 1) <= time.time() else "good"


def _used(key: Json) -> str:
    used = key["last_used_at"]
    return "never" if used is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
