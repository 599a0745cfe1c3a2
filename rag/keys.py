"""API keys: making them, knowing them again, and what each lets its caller do."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, RagError
from rag.access import SCOPES, Caller
from rag.catalog import keys as rows
from rag.catalog import stores
from rag.catalog.database import Database
from rag.catalog.keys import Key
from rag.catalog.records import Page, PageRequest

if TYPE_CHECKING:
    from rag.backend import Backend

PREFIX = "rag_"
SECRET = re.compile(r"rag_[A-Za-z0-9_-]{43}")
"""The prefix and 256 random bits."""
SHOWN = 10
"""Characters of a secret that may be seen: the prefix and 36 of its bits."""
FRESH_SECONDS = 1.0
"""For which what was read of a key holds: another process's revocation takes effect within it."""
MOST_KEPT = 10_000
USE_NOTED_EVERY = 60.0

log = logging.getLogger(__name__)


class Keys:
    """The keys that a process knows, each as it was a second ago at most. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[bytes, tuple[Key | None, float]] = OrderedDict()
        self._noted: dict[int, float] = {}
        self._changes = 0
        self._lock = Lock()
        self._notes = ThreadPoolExecutor(1, "key-use")

    def known(self, secret: str) -> Key | None:
        """The key of a secret when that is known without asking the catalog. Raises as `find`."""
        if not is_made(secret):
            raise _invalid()
        hash = _hash(secret)
        with self._lock:
            found = self._kept.get(hash)
        if found is None or time.monotonic() - found[1] > FRESH_SECONDS:
            return None
        return self._good(found[0], hash)

    def find(self, secret: str) -> Key:
        """The key of a secret, from the catalog. Raises ChangeRequest (`invalid_api_key`) for one that is unknown,
        expired or revoked, in the same words, and TryLater when the catalog cannot be asked."""
        hash = _hash(secret)
        with self._lock:
            changes = self._changes
        asked = time.monotonic()
        with self._database.read() as connection:
            key = rows.key_by_hash(connection, hash)
        with self._lock:
            # What was changed here meanwhile is not covered up by what was read before.
            if changes == self._changes:
                self._kept[hash] = key, asked
                self._kept.move_to_end(hash)
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        return self._good(key, hash)

    def forget(self) -> None:
        """Ask the catalog again for every key: one has been changed here."""
        with self._lock:
            self._changes += 1
            self._kept.clear()

    def close(self) -> None:
        """Let what is noted be written. Idempotent."""
        self._notes.shutdown()

    def _good(self, key: Key | None, hash: bytes) -> Key:
        if key is None or not hmac.compare_digest(key.hash, hash):
            raise _invalid()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= time.time()):
            raise _invalid()
        self._note(key)
        return key

    def _note(self, key: Key) -> None:
        """Write down that a key is in use: once a minute, and while nobody waits for it."""
        now = time.time()
        if now - self._noted.get(key.id, key.last_used_at or 0) < USE_NOTED_EVERY:
            return
        self._noted[key.id] = now
        self._notes.submit(self._write_note, key.id, int(now))

    def _write_note(self, key_id: int, at: int) -> None:
        try:
            with self._database.write(shared=True) as connection:
                rows.note_use(connection, key_id, at)
        except RagError as error:
            log.warning("the use of a key was not noted: %s", error)


def caller_of(key: Key) -> Caller:
    """What a key lets its caller do. An administrator may do and see everything of the tenant."""
    admin = "admin" in key.scopes
    return Caller(
        key.tenant,
        SCOPES if admin else frozenset(key.scopes),
        None if key.stores is None else frozenset(key.stores),
        None if admin else frozenset(key.permissions),
        key.public_id,
        limits=key.limits,
    )


def on_behalf(caller: Caller, permissions: frozenset[str], user: str | None, *, may_delegate: bool) -> Caller:
    """A caller as a signed claim narrows it: to the tags that it holds as well, or, where the key may delegate, to
    those that the claim names. Nobody manages anything on behalf of somebody."""
    held = permissions if may_delegate or caller.permissions is None else permissions & caller.permissions
    return Caller(
        caller.tenant, caller.scopes - {"admin"}, caller.stores, held, caller.key_id, user, limits=caller.limits
    )


def create_key(backend: Backend, tenant: str | None, values: Mapping[str, Any]) -> tuple[Key, str]:
    """A new key and its secret, which is told this once. `values` are those of `Key`'s fields that its maker chooses,
    `stores` by name or id, or None for all.

    Raises ChangeRequest for values that do not go together or a tenant that is not the caller's, and NotThere for an
    unknown store.
    """
    tenant = backend.caller.tenant if tenant is None else tenant
    if tenant != backend.caller.tenant and not is_operator(backend.caller):
        raise ChangeRequest(
            "A key makes keys of its own tenant only: leave 'tenant' out.", code="insufficient_scope", param="tenant"
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    with backend.database.write() as connection:
        chosen = _stored(connection, tenant, values)
        _require_sensible(chosen)
        key = rows.add_key(connection, tenant, secret[:SHOWN], _hash(secret), chosen)
    return key, secret


def get_key(backend: Backend, key_id: str) -> Key:
    """A key that the caller manages. Raises NotThere."""
    with backend.database.read() as connection:
        return rows.get_key(connection, _managed(backend), key_id)


def list_keys(backend: Backend, page: PageRequest) -> Page[Key]:
    """The keys that the caller manages: their tenant's, for the operator everybody's."""
    with backend.database.read() as connection:
        return rows.list_keys(connection, _managed(backend), page)


def update_key(backend: Backend, key_id: str, changes: Mapping[str, Any]) -> Key:
    """Change a key. Raises as `create_key`, and NotThere."""
    with backend.database.write() as connection:
        key = rows.get_key(connection, _managed(backend), key_id)
        changed = _stored(connection, key.tenant, changes)
        _require_sensible({**vars(key), **changed})
        key = rows.update_key(connection, key, changed)
    backend.keys.forget()
    return key


def revoke_key(backend: Backend, key_id: str) -> Key:
    """Let a key be good for nothing: at once in this process, within a second in others. Raises NotThere."""
    with backend.database.write() as connection:
        key = rows.get_key(connection, _managed(backend), key_id)
        rows.revoke(connection, key)
        key = rows.get_key(connection, key.tenant, key_id)
    backend.keys.forget()
    return key


def store_ids(backend: Backend, key: Key) -> list[str] | None:
    """The public ids of the stores that a key is good for, those that are gone left out; None for all."""
    if key.stores is None:
        return None
    with backend.database.read() as connection:
        found = (stores.get_store_by_id(connection, number) for number in key.stores)
        return [store.public_id for store in found if store is not None]


def is_made(secret: str | None) -> bool:
    """Whether a secret has the form of those that are made here, as no operator's own should."""
    return secret is not None and SECRET.fullmatch(secret) is not None


def is_operator(caller: Caller) -> bool:
    """Whether it is whoever runs the installation, not somebody with one of its keys."""
    return caller.key_id is None and "admin" in caller.scopes


def _managed(backend: Backend) -> str | None:
    return None if is_operator(backend.caller) else backend.caller.tenant


def _stored(connection: Connection, tenant: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a key as they are stored; `stores` are given by name or id."""
    stored = dict(values)
    for name in {"scopes", "permissions"} & stored.keys():
        stored[name] = sorted(set(stored[name]))
    if stored.get("stores") is not None:
        named = (stores.find_store(connection, Caller(tenant), name) for name in stored["stores"])
        stored["stores"] = sorted({store.id for store in named})
    return stored


def _require_sensible(values: Mapping[str, Any]) -> None:
    limited = values["stores"] is not None or values["permissions"] or values["may_delegate"]
    if "admin" in values["scopes"] and limited:
        raise ChangeRequest(
            "A key of the scope admin may do and see everything of its tenant: leave 'vector_store_ids', 'permissions' "
            "and 'may_delegate' out, or the scope.",
            code="invalid_value",
            param="scopes",
        )


def _hash(secret: str) -> bytes:
    """Of 256 random bits nothing slower is needed: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).digest()


def _invalid() -> ChangeRequest:
    return ChangeRequest("The key is not one of this server, or it was revoked or has expired.", code="invalid_api_key")
