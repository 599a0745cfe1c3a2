"""The image's recipe and the services of compose.yaml, without a container engine: each service of ours is started with
its own command and environment as a process on loopback, over a real PostgreSQL, an S3 server and a fake Qdrant.

Only addresses are changed: a service's name becomes a port of loopback.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from api.app import check_binding
from indexes.errors import ChangeRequest
from ingest.runner import STOP_WITHIN
from rag.catalog.engines import KINDS, parse_url
from rag.settings import load_settings, unknown_variables
from tests.api.running import fill, upload
from tests.campaigns.kills import free_port
from tests.fakes.qdrant_server import FakeQdrant
from tests.installations import Process, running
from tests.postgres import PASSWORD, Postgres
from tests.s3 import KEY, SECRET, running_s3

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KEYS = {
    "RAG_API_KEY": "api-key-canary",
    "POSTGRES_PASSWORD": PASSWORD,
    "S3_ACCESS_KEY": KEY,
    "S3_SECRET_KEY": SECRET,
    "QDRANT_API_KEY": "qdrant-canary",
}
OURS = ("api-1", "api-2", "worker-1", "worker-2")
SECRET_NAME = r"(KEY|KEY_ID|SECRET|PASSWORD|PGPASSWORD)$"
OF_OTHERS = {
    "rag": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "OMP_NUM_THREADS"},
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"},
    "chrislusf/seaweedfs": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_BUCKET"},
    "qdrant/qdrant": {"QDRANT__SERVICE__API_KEY", "QDRANT__TELEMETRY_DISABLED"},
}
"""What each image knows beside this project's settings, by its own documentation (libpq's and botocore's for ours)."""


def filled_in(value: Any, given: Mapping[str, str]) -> Any:
    """A part of compose.yaml with `${NAME:?message}` and `${NAME:-default}` replaced, as compose does."""
    if isinstance(value, dict):
        return {name: filled_in(part, given) for name, part in value.items()}
    if isinstance(value, list):
        return [filled_in(part, given) for part in value]
    return (
        re.sub(r"\$\{(\w+):([?-])([^}]*)\}", lambda m: _variable(m, given), value) if isinstance(value, str) else value
    )


def _variable(match: re.Match[str], given: Mapping[str, str]) -> str:
    name, mark, rest = match.groups()
    if not given.get(name) and mark == "?":
        raise LookupError(f"{name}: {rest}")
    return given.get(name) or rest


def services(given: Mapping[str, str] = KEYS) -> dict[str, Any]:
    """The services, with these variables."""
    found: dict[str, Any] = filled_in(yaml.safe_load(COMPOSE), given)["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image that is kept."""
    steps = instructions()
    return steps[max(number for number, (name, _) in enumerate(steps) if name == "FROM") :]


def image_environment() -> dict[str, str]:
    """What the image sets."""
    pairs = [pair for name, rest in last_stage() if name == "ENV" for pair in rest.split()]
    return dict(pair.split("=", 1) for pair in pairs)


# ---- what is written -------------------------------------------------------------------------------------------------


def test_the_services_are_those_of_a_small_cluster() -> None:
    found = services()
    assert set(found) == {*OURS, "postgres", "s3", "qdrant"}
    assert [found[name]["command"] for name in OURS] == [["serve", "--role", "api"]] * 2 + [
        ["serve", "--role", "worker"]
    ] * 2
    ports = [found[name]["ports"] for name in OURS[:2]]
    assert ports == [["127.0.0.1:8000:8000"], ["127.0.0.1:8001:8000"]]
    assert not any("ports" in found[name] for name in found if name not in OURS[:2])


@pytest.mark.parametrize("name", services())
def test_every_service_is_watched_bounded_pinned_and_keeps_its_data(name: str) -> None:
    service = services()[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "2g"}
    assert re.fullmatch(r"[a-z/]+:v?\d+[\w.-]*", service["image"])
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(yaml.safe_load(COMPOSE)["volumes"])
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert other in services()


def test_who_is_told_to_stop_has_the_time_for_it() -> None:
    for name in OURS:
        assert float(services()[name]["stop_grace_period"].removesuffix("s")) > STOP_WITHIN


def test_nobody_reports_to_its_makers() -> None:
    assert "-master.telemetry=false" in services()["s3"]["command"]
    assert services()["qdrant"]["environment"]["QDRANT__TELEMETRY_DISABLED"] == "true"
    assert image_environment()["DO_NOT_TRACK"] == "1"


def test_no_two_services_share_a_volume() -> None:
    used = [volume.split(":")[0] for service in services().values() for volume in service["volumes"]]
    assert sorted(used) == sorted(yaml.safe_load(COMPOSE)["volumes"])


@pytest.mark.parametrize("missing", KEYS)
def test_without_a_key_nothing_starts(missing: str) -> None:
    for given in ({**KEYS, missing: ""}, {name: key for name, key in KEYS.items() if name != missing}):
        with pytest.raises(LookupError, match=missing):
            services(given)


def test_keys_stand_nowhere_in_the_files() -> None:
    for service in yaml.safe_load(COMPOSE)["services"].values():
        for name, value in service["environment"].items():
            if re.search(SECRET_NAME, name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    assert not any(re.search(SECRET_NAME, name) for name in image_environment())
    assert not re.search(r"://[^/\s]*:[^/\s@]*@", COMPOSE + DOCKERFILE)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_variable_is_a_setting_or_known_to_its_image() -> None:
    for name, service in services().items():
        environment = {**(image_environment() if name in OURS else {}), **service["environment"]}
        assert not unknown_variables(environment)
        others = {variable for variable in service["environment"] if not variable.startswith("RAG_")}
        assert others <= OF_OTHERS[service["image"].split(":")[0]], name
        load_settings(environment=environment)


def test_the_parts_name_each_other_as_they_are() -> None:
    found = services()
    shared = found["api-1"]["environment"]
    postgres, s3 = found["postgres"]["environment"], found["s3"]["environment"]
    assert shared["RAG_CATALOG"] == f"postgresql://{postgres['POSTGRES_USER']}@postgres:5432/{postgres['POSTGRES_DB']}"
    assert shared["RAG_BLOBS"].startswith(f"s3://{s3['S3_BUCKET']}/")
    assert shared["PGPASSWORD"] == postgres["POSTGRES_PASSWORD"]
    assert (shared["AWS_ACCESS_KEY_ID"], shared["AWS_SECRET_ACCESS_KEY"]) == (
        s3["AWS_ACCESS_KEY_ID"],
        s3["AWS_SECRET_ACCESS_KEY"],
    )


def test_postgresql_takes_all_connections_that_are_opened() -> None:
    pool = KINDS["postgresql"].open(parse_url("postgresql://rag@postgres/rag")).pool
    of_jobs = 8
    most = int(re.search(r"max_connections=(\d+)", " ".join(services()["postgres"]["command"]))[1])
    assert len(OURS) * (pool.size() + pool._max_overflow + of_jobs) < most


def test_a_key_is_demanded_where_others_can_reach_the_server() -> None:
    with pytest.raises(ChangeRequest, match="RAG_API_KEY"):
        check_binding(load_settings(environment=image_environment()))
    for name in OURS:
        settings = load_settings(environment={**image_environment(), **services()[name]["environment"]})
        check_binding(settings)
        assert (settings.server.host == "127.0.0.1") == (name not in OURS[:2])


def test_the_image_is_built_from_what_is_here_and_runs_without_rights() -> None:
    steps = instructions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {rest.split()[0] for name, rest in steps if name == "FROM"} == {"python:3.11-slim-bookworm"}
    for name, rest in steps:
        if name == "COPY" and not rest.startswith("--from=build "):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert "--constraint constraints.txt" in installs[0]
    extras = re.search(r"\.\[([\w,]+)\]", installs[0])[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    assert "://" not in DOCKERFILE

    kept = dict(last_stage())
    assert kept["USER"] == "10001"
    assert "--uid 10001" in kept["RUN"]
    assert json.loads(kept["ENTRYPOINT"]) == ["rag"]
    assert project["scripts"]["rag"] == "api.cli:main"
    assert kept["VOLUME"] == image_environment()["RAG_DATA"]
    assert image_environment()["HF_HUB_OFFLINE"] == "1"
    assert services()["api-1"]["volumes"][0].endswith(":" + kept["VOLUME"])


# ---- what runs -------------------------------------------------------------------------------------------------------


@dataclass
class Service(Process):
    """A service of compose.yaml as a process: the image's and its own environment, and nothing of ours."""

    addresses: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        service = services()[self.role]
        environment = {**image_environment(), **service["environment"]}
        environment = {name: self.here(value) for name, value in environment.items()}
        # The toy stands in for the embedder, which takes long to load; the rest is where things lie on this machine.
        environment |= {**self.settings, "RAG_DATA": str(self.data), "RAG_SERVER_PORT": str(self.port)}
        environment |= {"PATH": os.environ["PATH"], "HOME": str(self.data)}
        command = [sys.executable, "-c", "from api.cli import main; main()", *service["command"]]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
        )

    def here(self, value: str) -> str:
        """A value with the addresses of this machine."""
        for there, address in {"0.0.0.0": "127.0.0.1", **self.addresses}.items():
            value = value.replace(there, address)
        return value

    def healthy(self) -> bool:
        """What the service's own health check says."""
        _, program, *arguments = services()[self.role]["healthcheck"]["test"]
        assert program == "python"
        arguments = [argument.replace("8000", str(self.port)) for argument in arguments]
        return subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def deployed(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """All services of ours, running and ready."""
    folder = tmp_path_factory.mktemp("deployed")
    wanted = services()["postgres"]["environment"]
    with ExitStack() as stack:
        user, name = wanted["POSTGRES_USER"], wanted["POSTGRES_DB"]
        postgres.run(f"CREATE ROLE {user} LOGIN PASSWORD '{wanted['POSTGRES_PASSWORD']}'")
        stack.callback(postgres.run, f"DROP ROLE {user}")
        postgres.run(f"CREATE DATABASE {name} OWNER {user}")
        stack.callback(postgres.run, f"DROP DATABASE {name} WITH (FORCE)")
        s3 = stack.enter_context(running_s3())
        httpx.put(f"{s3}/{services()['s3']['environment']['S3_BUCKET']}", trust_env=False).raise_for_status()
        qdrant = stack.enter_context(FakeQdrant(api_key=KEYS["QDRANT_API_KEY"]))
        addresses = {"postgres:5432": f"127.0.0.1:{postgres.port}", "http://s3:8333": s3}
        addresses["http://qdrant:6333"] = qdrant.url
        toy = {"RAG_EMBEDDER": "toy-384", "RAG_LOG_LEVEL": "warning"}
        made = {name: Service(name, folder / name, toy, addresses=addresses) for name in OURS}
        stack.enter_context(running(list(made.values())))
        yield made


@pytest.fixture
def doors(deployed: dict[str, Service]) -> Iterator[list[httpx.Client]]:
    """A client of each replica, with the key."""
    key = {"Authorization": f"Bearer {KEYS['RAG_API_KEY']}"}
    with ExitStack() as stack:
        clients = [
            httpx.Client(base_url=deployed[name].url, headers=key, timeout=60.0, trust_env=False) for name in OURS[:2]
        ]
        yield [stack.enter_context(client) for client in clients]


def test_what_is_uploaded_at_one_replica_is_found_at_the_other(doors: list[httpx.Client]) -> None:
    corpus = fill(doors[0], "deployed")
    answer = doors[1].post(f"/v1/vector_stores/{corpus.store}/search", json={"query": "parcels to Norway"})
    assert "Norway" in answer.json()["data"][0]["content"][0]["text"]
    file = upload(doors[1], "any.bin", bytes(range(256)))
    assert doors[0].get(f"/v1/files/{file}/content").content == bytes(range(256))


def test_jobs_run_in_workers_only_and_only_replicas_answer(
    deployed: dict[str, Service], doors: list[httpx.Client]
) -> None:
    for door in doors:
        assert door.get("/v1/status").json()["runs_jobs"] is False
        assert httpx.get(f"{door.base_url}/v1/status", trust_env=False).status_code == 401
    for name in OURS[2:]:
        assert httpx.get(f"{deployed[name].url}/v1/models", trust_env=False).status_code == 404


def test_the_health_checks_tell_the_living_from_the_dead(deployed: dict[str, Service]) -> None:
    assert all(service.healthy() for service in deployed.values())
    assert not Service("api-1", Path(), {}).healthy()


def test_the_images_own_health_check_works(deployed: dict[str, Service]) -> None:
    _, check = dict(last_stage())["HEALTHCHECK"].split("CMD ")
    for port, status in ((deployed["worker-1"].port, 0), (free_port(), 1)):
        program, *arguments = [part.replace("8000", str(port)) for part in json.loads(check)]
        assert program == "python"
        done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        assert done.returncode == status


def test_the_database_is_healthy_once_it_answers(postgres: Postgres) -> None:
    _, program, *arguments = services()["postgres"]["healthcheck"]["test"]
    for port, status in ((postgres.port, 0), (free_port(), 2)):
        environment = {**os.environ, "PGPORT": str(port)}
        done = subprocess.run(
            [postgres.programs / program, *arguments], env=environment, capture_output=True, check=False
        )
        assert done.returncode == status


@pytest.mark.parametrize(("name", "port", "path"), [("s3", 8333, "/healthz"), ("qdrant", 6333, "/readyz")])
def test_servers_that_are_not_here_are_asked_at_their_health_routes(name: str, port: int, path: str) -> None:
    class Answering(BaseHTTPRequestHandler):
        ready = True

        def do_GET(self) -> None:
            self.send_response(200 if self.ready and self.path == path else 503)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    def healthy(at: int) -> bool:
        command = [part.replace(str(port), str(at)) for part in services()[name]["healthcheck"]["test"][1:]]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert healthy(server.server_port)
        Answering.ready = False
        assert not healthy(server.server_port)
        server.shutdown()
    assert not healthy(free_port())


def test_a_service_that_is_told_to_stop_does_so_in_order(deployed: dict[str, Service]) -> None:
    for name in ("api-2", "worker-2"):
        process = deployed[name].process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not deployed[name].healthy()
        with closing(process.stderr):
            deployed[name].process = None
