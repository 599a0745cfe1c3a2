"""Attempts to read or change what is another tenant's, or hidden: over every route of the running app.

    python -m tests.campaigns.walls --attempts 10000 --seed 1

Two tenants, each with documents that all of it may see, documents with permission tags, and a store that some keys are
not granted. Everything that a caller may not see carries words (canaries) that no request ever says. Routes, their
parameters and bodies come from the app's own OpenAPI, so that a new route is attacked as well: with ids that are
foreign, hidden or unknown, filters by hidden attributes, and keys that are revoked, expired or nonsense. No answer may
hold a canary that is not the caller's to see; an id that is not theirs is answered as one that does not exist, in the
very same words; and in the end nothing of the tenants' has changed.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import string
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import jwt
from pydantic import SecretStr

from rag.settings import ServerSettings, Settings
from tests.api.running import RunningServer, finished, upload, wait_for

OPERATOR = "the operator's own key"
OPERATORS = "default"
"""The operator's own tenant."""
CLAIM_SECRET = "c" * 64
OPEN = ("/healthz", "/readyz")
TOPICS = ("salary", "kettle", "contract", "holiday", "merger", "router", "invoice")
QUESTIONS = tuple(f"What do we know about the {topic}?" for topic in TOPICS)
MEASURED = ("question_set", "evaluation", "ab_test")
ASKING = ("search", "context", "completions", "responses", "embeddings", "retrieval")
"""Ends of paths whose POST changes nothing."""


@dataclass(frozen=True)
class Item:
    """A document of a tenant. `tags` and `store` decide who sees it."""

    tenant: str
    store: str
    name: str
    tags: tuple[str, ...]
    canary: str
    file_id: str = ""


@dataclass(frozen=True)
class Attacker:
    """A caller, and what is theirs to see."""

    name: str
    headers: Mapping[str, str]
    tenant: str | None
    """None for somebody whom nothing is for."""
    tags: frozenset[str] | None = frozenset()
    stores: frozenset[str] | None = None
    """By name; None for all."""

    def sees(self, item: Item) -> bool:
        """The rule, worked out here: tenant, grant, and no tag or one that is held."""
        granted = self.stores is None or item.store in self.stores
        tagged = self.tags is None or not item.tags or bool(self.tags & set(item.tags))
        return self.tenant == item.tenant and granted and tagged


@dataclass
class World:
    """What is there to be attacked."""

    url: str
    http: httpx.Client
    items: list[Item] = field(default_factory=list)
    stores: dict[tuple[str, str], str] = field(default_factory=dict)
    """(tenant, name) to id."""
    store_canaries: dict[tuple[str, str], str] = field(default_factory=dict)
    key_canaries: dict[str, str] = field(default_factory=dict)
    """By tenant: in the names of its keys, for administrators alone."""
    keys: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[tuple[str, str], str] = field(default_factory=dict)
    """(tenant, one of MEASURED) to id."""
    measured_canaries: dict[str, str] = field(default_factory=dict)
    """By tenant: in what is MEASURED, for its administrators alone."""
    admins: dict[str, dict[str, str]] = field(default_factory=dict)
    attackers: list[Attacker] = field(default_factory=list)

    def forbidden(self, attacker: Attacker) -> list[str]:
        """Every canary that must not reach this caller."""
        hidden = [item.canary for item in self.items if not attacker.sees(item)]
        hidden += [c for (tenant, name), c in self.store_canaries.items() if not self.uses(attacker, tenant, name)]
        hidden += [c for tenant, c in self.measured_canaries.items() if not self.measures(attacker, tenant)]
        return hidden + [c for tenant, c in self.key_canaries.items() if not self.manages(attacker, tenant)]

    def manages(self, attacker: Attacker, tenant: str) -> bool:
        """Whether a tenant's keys are there for a caller: for its administrators and the operator."""
        return attacker.tags is None and attacker.tenant in (tenant, OPERATORS)

    def measures(self, attacker: Attacker, tenant: str) -> bool:
        """Whether what of a tenant is MEASURED is there for a caller: for its administrators."""
        return attacker.tags is None and attacker.tenant == tenant

    def uses(self, attacker: Attacker, tenant: str, store: str) -> bool:
        """Whether a store is there for a caller."""
        return attacker.tenant == tenant and (attacker.stores is None or store in attacker.stores)

    def hidden_ids(self, attacker: Attacker, kind: str) -> list[str]:
        """Ids of one kind that are not there for a caller."""
        if kind == "file":
            return [item.file_id for item in self.items if not attacker.sees(item)]
        if kind == "store":
            return [id_ for (tenant, name), id_ in self.stores.items() if not self.uses(attacker, tenant, name)]
        if kind in MEASURED:
            measured = self.measured.items()
            return [id_ for (tenant, of), id_ in measured if of == kind and not self.measures(attacker, tenant)]
        return [id_ for tenant, ids in self.keys.items() if not self.manages(attacker, tenant) for id_ in ids]

    def all_ids(self, kind: str) -> list[str]:
        """Every id of one kind."""
        if kind == "file":
            return [item.file_id for item in self.items]
        if kind in MEASURED:
            return [id_ for (_, of), id_ in self.measured.items() if of == kind]
        return list(self.stores.values()) if kind == "store" else [id_ for ids in self.keys.values() for id_ in ids]


def canary() -> str:
    """A word that is nowhere else."""
    return "qz" + "".join(random.SystemRandom().choices(string.ascii_lowercase, k=14))


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """A server over an empty folder, filled."""
    settings = Settings(
        data=folder,
        embedder="toy-384",
        server=ServerSettings(
            api_key=SecretStr(OPERATOR), claim_secret=SecretStr(CLAIM_SECRET), mcp=find_spec("mcp") is not None
        ),
    )
    with RunningServer(settings, jobs=True) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        world = World(server.url, http)
        for tenant in ("acme", "globex"):
            _fill(world, tenant)
        world.attackers = _attackers(world)
        yield world


def new_key(world: World, tenant: str, *scopes: str, **fields: Any) -> dict[str, Any]:
    """A key of a tenant, made by the operator."""
    name = f"{fields.pop('name', 'key')} {world.key_canaries.setdefault(tenant, canary())}"
    body = {"name": name, "tenant": tenant, "scopes": list(scopes), **fields}
    answer = world.http.post("/v1/keys", json=body, headers=bearer(OPERATOR))
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    world.keys.setdefault(tenant, []).append(made["id"])
    return made


def bearer(secret: str) -> dict[str, str]:
    """The header that a key comes in."""
    return {"Authorization": f"Bearer {secret}"}


def claim(permissions: Sequence[str], seconds: float = 3600, **more: Any) -> dict[str, str]:
    """The header of a user's claim."""
    told = {"permissions": list(permissions), "exp": int(time.time() + seconds), **more}
    return {"X-RAG-Claim": jwt.encode(told, CLAIM_SECRET, algorithm="HS256")}


def _fill(world: World, tenant: str) -> None:
    headers = world.admins[tenant] = bearer(new_key(world, tenant, "admin", name="admin")["secret"])
    with httpx.Client(base_url=world.url, timeout=60, headers=headers) as http:
        for store, all_tags in (("handbook", ((), (), ("hr",), ("hr", "board"), ("legal",))), ("vault", ((), ("hr",)))):
            word = world.store_canaries[tenant, store] = canary()
            body = {"name": store, "description": f"kept by {word}", "metadata": {"owner": word}}
            id_ = world.stores[tenant, store] = http.post("/v1/vector_stores", json=body).json()["id"]
            for number, tags in enumerate(all_tags):
                _put(world, http, Item(tenant, store, f"{store}-{number}", tags, canary()), id_, number)
        _measure(world, http, tenant)


def _measure(world: World, http: httpx.Client, tenant: str) -> None:
    word = world.measured_canaries[tenant] = canary()
    label = next(item.file_id for item in world.items if item.tenant == tenant)
    line = {"id": word, "question": f"What of {word}?", "labels": [{"document": label}], "answers": [word]}
    made = http.post("/v1/question_sets", params={"name": f"questions of {word}"}, content=json.dumps(line))
    assert made.status_code == 200, made.text
    world.measured[tenant, "question_set"] = made.json()["id"]
    watched = http.put("/v1/vector_stores/handbook/drift/canaries", json={"question_set": made.json()["id"]})
    assert watched.status_code == 200, watched.text
    body = {"vector_store_id": "handbook", "question_set": made.json()["id"], "arms": [{"name": word}]}
    asked = http.post("/v1/evaluations", json=body)
    assert asked.status_code == 200, asked.text
    id_ = world.measured[tenant, "evaluation"] = asked.json()["id"]
    wait_for(lambda: http.get(f"/v1/evaluations/{id_}").json()["status"] == "completed")
    arms = [{"name": word, "share": 0.5}, {"name": "other", "share": 0.5, "model": "extractive"}]
    begun = http.post("/v1/ab_tests", json={"name": word, "arms": arms})
    assert begun.status_code == 200, begun.text
    world.measured[tenant, "ab_test"] = begun.json()["id"]


def _put(world: World, http: httpx.Client, item: Item, store: str, number: int) -> None:
    topics = random.Random(number).sample(TOPICS, 3)
    text = f"# About the {topics[0]}\n\n" + " ".join(f"The {topic} is a matter of {item.canary}." for topic in topics)
    file_id = upload(http, f"{item.name}-{item.canary}.md", text)
    attributes: dict[str, Any] = {"owner": item.canary, "year": 2000 + number}
    if item.tags:
        attributes |= {"grade": "secret", f"kept by {item.canary}": True}
    body = {"file_id": file_id, "attributes": attributes, "permissions": list(item.tags), "source": f"{item.canary}.md"}
    answer = http.post(f"/v1/vector_stores/{store}/files", json=body)
    assert answer.status_code == 200, answer.text
    assert finished(http, store, file_id)["status"] == "completed"
    world.items.append(Item(item.tenant, item.store, item.name, item.tags, item.canary, file_id))


def _attackers(world: World) -> list[Attacker]:
    acme, globex = "acme", "globex"
    handbook = {"vector_store_ids": [world.stores[acme, "handbook"]]}
    both = "query", "ingest"

    def made(name: str, tenant: str, *scopes: str, extra: Mapping[str, str] | None = None, **fields: Any) -> Attacker:
        secret = new_key(world, tenant, *scopes, **fields)["secret"]
        held = frozenset(fields.get("permissions", ()))
        stores = frozenset({"handbook"}) if "vector_store_ids" in fields else None
        return Attacker(name, {**bearer(secret), **(extra or {})}, tenant, held, stores)

    reader = made("reader", acme, "query")
    admin = Attacker("admin", world.admins[globex], globex, None)
    revoked = new_key(world, acme, "admin")
    assert world.http.delete(f"/v1/keys/{revoked['id']}", headers=bearer(OPERATOR)).status_code == 200
    expired = new_key(world, acme, "admin", expires_at=int(time.time()) + 1)
    wait_for(lambda: time.time() > expired["expires_at"])
    return [
        reader,
        made("writer", acme, *both),
        made("hr", acme, *both, permissions=["hr"]),
        made("drop box", acme, "ingest"),
        made("granted", acme, *both, **handbook),
        made("granted, hr", acme, "query", permissions=["hr"], **handbook),
        Attacker("narrowed", {**made("", acme, "query", permissions=["hr"]).headers, **claim(["legal"])}, acme),
        Attacker("admin with a claim", {**world.admins[acme], **claim(["legal"])}, acme, frozenset({"legal"})),
        Attacker(
            "delegate",
            {**made("", acme, *both, may_delegate=True).headers, **claim(["board"], sub="ann")},
            acme,
            frozenset({"board"}),
        ),
        admin,
        made("neighbour", globex, *both, permissions=["hr", "legal", "board"]),
        Attacker("operator", bearer(OPERATOR), OPERATORS, None),
        Attacker("revoked", bearer(revoked["secret"]), None),
        Attacker("expired", bearer(expired["secret"]), None),
        Attacker("nobody", {}, None),
        Attacker("guess", bearer(f"rag_{secrets.token_urlsafe(32)}"), None),
        Attacker("forged claim", {**reader.headers, "X-RAG-Claim": _forged(["hr"])}, None),
    ]


def _forged(permissions: Sequence[str]) -> str:
    told = {"permissions": list(permissions), "exp": int(time.time() + 3600)}
    return jwt.encode(told, "g" * 40, algorithm="HS256")


@dataclass(frozen=True)
class Operation:
    """One method of one path, with what it takes."""

    method: str
    path: str
    parameters: tuple[str, ...]
    queries: tuple[str, ...]
    body: Mapping[str, Any] | None
    form: bool

    @property
    def harms(self) -> bool:
        """Whether it may change what the path names: only what is not the caller's is attacked with it."""
        changes = self.method not in ("GET", "HEAD") and not self.path.endswith(ASKING)
        return changes and (self.body is None or self.path.endswith("}"))


def operations(openapi: Mapping[str, Any]) -> list[Operation]:
    """Every operation of an app but health's."""
    found = []
    for path, methods in openapi["paths"].items():
        for method, told in methods.items():
            if path in OPEN or method not in ("get", "put", "post", "delete", "patch", "head"):
                continue
            given = told.get("parameters", [])
            content = told.get("requestBody", {}).get("content", {})
            found.append(
                Operation(
                    method.upper(),
                    path,
                    tuple(p["name"] for p in given if p["in"] == "path"),
                    tuple(p["name"] for p in given if p["in"] == "query"),
                    content.get("application/json", {}).get("schema"),
                    "multipart/form-data" in content,
                )
            )
    return found


@dataclass(frozen=True)
class Attempt:
    """One request, and the same with ids that nobody has."""

    operation: Operation
    path: str
    twin: str | None
    """None where the path names nothing that is hidden."""
    unknown: Mapping[str, str]
    """In the twin, for each id of the path what stands there instead."""
    arguments: Mapping[str, Any]


class Attack:
    """Random attempts on a world, reproducible by their seed."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)
        openapi = world.http.get("/openapi.json", headers=bearer(OPERATOR)).json()
        self._schemas = openapi.get("components", {}).get("schemas", {})
        self.operations = operations(openapi)
        self.statuses: Counter[int] = Counter()
        self.twins = 0
        self.routes: Counter[str] = Counter()

    def run(self, attempts: int) -> None:
        """Raises AssertionError at the first answer that tells too much, or when something has changed in the end."""
        before = self._state()
        for number in range(attempts):
            attacker = self._rng.choice(self._world.attackers)
            # Each operation in turn, so that none is left out.
            operation = self.operations[number % len(self.operations)]
            try:
                self._try(attacker, self._attempt(attacker, operation))
            except AssertionError as error:
                raise AssertionError(f"attempt {number} by {attacker.name}: {error}") from error
        after = self._state()
        changed = {place: (told, after[place]) for place, told in before.items() if after[place] != told}
        assert not changed, f"what was not theirs was changed: {changed}"

    def _try(self, attacker: Attacker, attempt: Attempt) -> None:
        answer = self._send(attacker, attempt.operation, attempt.path, attempt.arguments)
        self.statuses[answer.status_code] += 1
        self.routes[f"{attempt.operation.method} {attempt.operation.path}"] += 1
        asked = f"{attempt.operation.method} {attempt.path} {attempt.arguments}"
        said = f"{asked}: {answer.status_code} {answer.text[:500]}"
        assert answer.status_code < 500 or answer.status_code == 503, said
        told = answer.text + json.dumps(dict(answer.headers))
        assert not [word for word in self._world.forbidden(attacker) if word in told], said
        if attacker.tenant is None:
            # Dify takes 403 alone for a key that is refused.
            assert answer.status_code in ((401, 403) if "/dify/" in attempt.path else (401,)), said
        elif attempt.twin is not None:
            assert answer.status_code in (400, 403, 404), said
            self._compare(attacker, attempt, answer, said)

    def _compare(self, attacker: Attacker, attempt: Attempt, answer: httpx.Response, said: str) -> None:
        """What is hidden is answered as what does not exist."""
        assert attempt.twin is not None
        self.twins += 1
        twin = self._send(attacker, attempt.operation, attempt.twin, attempt.arguments)
        expected = twin.text
        for id_, unknown in attempt.unknown.items():
            expected = expected.replace(unknown, id_)
        assert (answer.status_code, answer.text) == (twin.status_code, expected), f"{said}\nbut {expected[:500]}"

    def _send(
        self, attacker: Attacker, operation: Operation, path: str, arguments: Mapping[str, Any]
    ) -> httpx.Response:
        return self._world.http.request(operation.method, path, headers=dict(attacker.headers), **arguments)

    def _attempt(self, attacker: Attacker, operation: Operation) -> Attempt:
        path = twin = operation.path
        unknown: dict[str, str] = {}
        hides = False
        for at, name in enumerate(operation.parameters):
            kind = _kind(name)
            hidden = self._world.hidden_ids(attacker, kind)
            must = operation.harms and at == len(operation.parameters) - 1
            if hidden and (must or self._rng.random() < 0.6):
                id_ = self._rng.choice(hidden)
            else:
                id_ = f"file-{secrets.token_hex(12)}" if must else self._other_id(kind, hidden)
            hides = hides or id_ in hidden
            stand_in = _unlike(id_) if id_ in hidden else id_
            unknown[id_] = stand_in
            path, twin = path.replace(f"{{{name}}}", id_), twin.replace(f"{{{name}}}", stand_in)
        arguments = self._arguments(attacker, operation)
        return Attempt(operation, path, twin if hides else None, unknown, arguments)

    def _other_id(self, kind: str, hidden: Sequence[str]) -> str:
        own = [id_ for id_ in self._world.all_ids(kind) if id_ not in hidden]
        return self._rng.choice([*own, f"vs_{secrets.token_hex(12)}", "handbook", "vault", "..", "%00"])

    def _arguments(self, attacker: Attacker, operation: Operation) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        query = {name: self._query(name) for name in operation.queries if self._rng.random() < 0.3}
        if query:
            arguments["params"] = query
        if operation.form:
            arguments |= {"files": {"file": ("attack.txt", b"an attack")}, "data": {"purpose": "assistants"}}
        elif operation.body is not None:
            arguments["json"] = self._value(attacker, operation.body, "", 0)
        return arguments

    def _query(self, name: str) -> str:
        if name in ("after", "before"):
            return self._rng.choice(
                [id_ for kind in ("file", "store", "key", *MEASURED) for id_ in self._world.all_ids(kind)]
            )
        other = self._rng.choice(["completed", "assistants"])
        return {"limit": "5", "order": self._rng.choice(["asc", "desc"])}.get(name, other)

    def _value(self, attacker: Attacker, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        """Something that a schema allows, with ids and questions where they belong."""
        special = self._special(attacker, name)
        if special is not None:
            return special
        if "$ref" in schema:
            return self._value(attacker, self._schemas[schema["$ref"].rsplit("/", 1)[-1]], name, depth + 1)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self._value(attacker, self._rng.choice(schema[several]), name, depth + 1)
        if "const" in schema or "enum" in schema:
            return self._rng.choice(schema.get("enum", [schema.get("const")]))
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            return self._object(attacker, schema, depth)
        if kind == "array":
            return [self._value(attacker, schema.get("items", {}), name, depth + 1)] if depth < 6 else []
        low = schema.get("minimum", 0)
        numbers = {"integer": int(low) + 3, "number": 0.5, "boolean": self._rng.random() < 0.5, "null": None}
        return numbers.get(str(kind), f"attack-{self._rng.randrange(10**6)}")

    def _object(self, attacker: Attacker, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if depth >= 8:
            return {}
        wanted = {*schema.get("required", ()), "filters", "vector_store_ids", "question", "messages"}
        some = {
            name: inner
            for name, inner in schema.get("properties", {}).items()
            if name in wanted or self._rng.random() < 0.25
        }
        return {name: self._value(attacker, inner, name, depth + 1) for name, inner in some.items()}

    def _special(self, attacker: Attacker, name: str) -> Any:
        rng, world = self._rng, self._world
        if name in ("file_id", "file_ids"):
            id_ = rng.choice(world.hidden_ids(attacker, "file"))
            return id_ if name == "file_id" else [id_]
        if name in ("vector_store_id", "vector_store_ids", "knowledge_id"):
            ids = rng.sample([*world.all_ids("store"), "handbook", "vault"], rng.randint(1, 2))
            return ids if name == "vector_store_ids" else ids[0]
        if name == "question_set":
            return rng.choice(world.all_ids("question_set"))
        if name in ("query", "question", "input", "content", "text"):
            return rng.choice(QUESTIONS)
        if name == "messages":
            return [{"role": "user", "content": rng.choice(QUESTIONS)}]
        if name == "filters":
            return self._filter(2)
        return {"model": "extractive", "expires_after": None, "tenant": rng.choice(["acme", "globex"])}.get(name)

    def _filter(self, depth: int) -> dict[str, Any]:
        rng = self._rng
        if depth and rng.random() < 0.5:
            parts = [self._filter(depth - 1) for _ in range(rng.randint(1, 3))]
            return {"type": rng.choice(["and", "or"]), "filters": parts}
        key, value = rng.choice([("grade", "secret"), ("year", 2002), ("owner", "x"), ("grade", 1), ("nothing", True)])
        kind = rng.choice(["eq", "ne", "gt", "lte", "in", "nin"])
        return {"type": kind, "key": key, "value": [value] if kind in ("in", "nin") else value}

    def _state(self) -> dict[str, Any]:
        """All that the tenants have of what they had in the beginning, as their administrators see it."""
        world, told = self._world, {}
        for (tenant, name), store in world.stores.items():
            headers = world.admins[tenant]
            path = f"/v1/vector_stores/{store}"
            told[path] = _without(
                world.http.get(path, headers=headers).json(), "last_active_at", "file_counts", "usage_bytes"
            )
            for item in world.items:
                if (item.tenant, item.store) == (tenant, name):
                    for of in (f"{path}/files/{item.file_id}", f"{path}/files/{item.file_id}/content"):
                        told[of] = world.http.get(of, headers=headers).json()
                    whole = f"/v1/files/{item.file_id}/content"
                    told[whole] = world.http.get(whole, headers=headers).text
        for (tenant, kind), id_ in world.measured.items():
            path = f"/v1/{kind}s/{id_}" + ("/export" if kind == "question_set" else "")
            told[path] = world.http.get(path, headers=world.admins[tenant]).text
        for tenant, ids in world.keys.items():
            for id_ in ids:
                answer = world.http.get(f"/v1/keys/{id_}", headers=bearer(OPERATOR)).json()
                told[f"{tenant} {id_}"] = _without(answer, "last_used_at")
        return told


def _without(told: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in names}


def _kind(parameter: str) -> str:
    if parameter.removesuffix("_id") in MEASURED:
        return parameter.removesuffix("_id")
    return "file" if "file" in parameter else "store" if "store" in parameter else "key"


def _unlike(id_: str) -> str:
    """An id of the same form that nobody has."""
    begin, separator, rest = id_.partition("_") if "_" in id_ else id_.partition("-")
    return begin + separator + secrets.token_hex(len(rest) // 2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder)) as world:
        attack = Attack(world, given.seed)
        started = time.monotonic()
        attack.run(given.attempts)
        seconds = time.monotonic() - started
    print(f"seed {given.seed}: {given.attempts} attempts on {len(attack.routes)} operations in {seconds:.0f} s")
    print(f"{attack.twins} compared with an id that nobody has; statuses {dict(sorted(attack.statuses.items()))}")
    print("0 foreign bytes, nothing changed")


if __name__ == "__main__":
    main()
