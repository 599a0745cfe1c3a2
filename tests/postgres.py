"""A real PostgreSQL for the tests: in a temporary folder, on loopback, as a user that is not root, gone at the end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.campaigns.kills import free_port

PASSWORD = "correct/horse@battery"
STARTS_WITHIN = 60.0


@dataclass
class Postgres:
    """A running server. Its only user is `postgres`, by password."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """The URL of one of its databases, as one would write it into the settings."""
        url = sa.URL.create("postgresql", "postgres", password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def run(self, statement: str) -> None:
        """Run a statement as the superuser, outside any transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, like: str = "template1") -> Iterator[str]:
        """The URL of a database of its own: a copy of the one named, to which nobody may be connected."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {like}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        """Start it and wait until it answers."""
        # Nothing here outlives the tests, so nothing need reach the disk.
        quick = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "100"}
        options = [part for name, value in quick.items() for part in ("-c", f"{name}={value}")]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options]
        command += ["-c", "listen_addresses=127.0.0.1", "-k", self.folder]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **_as_another_user())
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not answer in time"
                time.sleep(0.05)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it, breaking off its connections, and wait until it is gone; SIGQUIT is a crash."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=60)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server for as long as the context lasts. Skips where PostgreSQL's programs are not installed."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="rag-postgres-"))
    server = Postgres(folder, programs, free_port())
    try:
        _make(server)
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make(server: Postgres) -> None:
    secret = server.folder / "password"
    secret.write_text(PASSWORD)
    user = _as_another_user().get("user")
    for path in (server.folder, secret):
        if user is not None:
            shutil.chown(path, user)
    command = [server.programs / "initdb", "-D", server.folder / "data", "-U", "postgres", "--no-sync"]
    command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
    done = subprocess.run(command, cwd=server.folder, capture_output=True, text=True, check=False, **_as_another_user())
    assert done.returncode == 0, done.stderr


def _programs() -> Path:
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    config = shutil.which("pg_config")
    told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False).stdout if config else ""
    folders = [Path(told.strip())] if told else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    pytest.skip("PostgreSQL's programs are not installed: apt-get install postgresql")


def _as_another_user() -> dict[str, object]:
    """What makes a child process someone else's, where this one is root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known.get("nobody")
    if user is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as")
    return {"user": user.pw_name, "group": user.pw_gid, "extra_groups": []}
