"""A store as one file: honest archives come back as they went, and of any other nothing is left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest, NotThere, TryLater
from ingest import archive, exporting, importing, intake
from rag.backend import Backend
from rag.blobs import read_blob
from rag.catalog import schema, stores
from rag.catalog.records import Store
from rag.retrieve import SearchOptions, retrieve
from rag.texts import encode_text
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ["red kettle", "a boat in the harbour", "the violin of house three", "granite"]
SIZED = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
Members = dict[str, bytes]


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def fill(backend: Backend) -> Store:
    store = intake.create_store(backend, "houses", description="of stone", metadata={"kind": "test"})
    for number in range(5):
        text = f"# House {number}\n\n" + f"The red kettle of house {number} whistles. A boat lies in the harbour. " * 9
        add_text(backend, store, f"{number}.md", text, {"number": number, "stone": number % 2 == 0})
    add_text(backend, store, "empty.md", "")
    with backend.database.write() as connection:
        sized = sa.update(schema.documents).where(schema.documents.c.source == "2.md")
        connection.execute(sized.values(chunking=SIZED))
        store = stores.update_store(connection, store, {"expires_after_days": 300})
    wait_until_idle(backend)
    add_text(backend, store, "1.md", "# House 1\n\nThe violin of house three is made of granite.\n")
    wait_until_idle(backend)
    intake.delete_documents(backend, [all_documents(backend, store)["4.md"]])
    return store


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, beside the data folder that it was made of."""
    folder = tmp_path_factory.mktemp("exported")
    settings = toy_settings(folder / "data", ingest__chunk_tokens=32)
    with open_backend(settings) as backend:
        fill(backend)
    with open_backend(settings, jobs=False) as backend:
        store = backend.find_store("houses")
        add_text(backend, store, "2.md", "# House 2\n\nNot ingested yet.\n")
        add_text(backend, store, "new.md", "# New\n\nNot ingested yet either.\n")
        exporting.export_store(backend, store, folder / "houses.zip", quiet)
    return folder / "houses.zip"


@pytest.fixture
def backend(catalog_url: str, tmp_path: Path) -> Iterator[Backend]:
    with open_backend(toy_settings(tmp_path / "data", catalog=catalog_url), jobs=False) as opened:
        yield opened


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def write(path: Path, found: Members, *, honest: bool = True) -> Path:
    """An archive of these members; with `honest`, its manifest says their true checksums."""
    if honest and "manifest.json" in found:
        told = json.loads(found["manifest.json"])
        told["members"] = {name: hashlib.sha256(found[name]).hexdigest() for name in archive.TABLES if name in found}
        found = {**found, "manifest.json": json.dumps(told).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in found.items():
            file.writestr(name, data)
    return path


def everything(backend: Backend) -> dict[str, int]:
    """How much there is of everything, as the test counts it itself."""
    with backend.database.read() as connection:
        counts = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
            if table.name not in ("installation", "spaces", "workers")
        }
    return counts | {"blobs": sum(len(keys) for keys in backend.blobs.keys(-60))}


def shape(backend: Backend, store: Store) -> dict[str, Any]:
    """What a store holds, without numbers that are new at each import."""
    documents, versions, chunks, vectors = schema.documents, schema.versions, schema.chunks, schema.vectors
    with backend.database.read() as connection:
        query = (
            sa.select(
                documents.c.source, versions.c.title, versions.c.text_blob, versions.c.characters, chunks, vectors
            )
            .join(versions, versions.c.document_id == documents.c.id)
            .join(chunks, chunks.c.version_id == versions.c.id)
            .join(vectors, vectors.c.embedding_key == chunks.c.embedding_key)
            .where(documents.c.store_id == store.id, versions.c.published_seq.is_not(None))
            .where(versions.c.retired_seq.is_(None))
            .order_by(documents.c.source, chunks.c.ordinal)
        )
        names = ("source", "title", "text_blob", "characters", "ordinal", "start", "end", "page", "tokens", "header")
        names += ("text", "heading_path", "embedding_key", "vector")
        found = [{name: row._mapping[name] for name in names} for row in connection.execute(query)]
    rows = all_documents(backend, store).values()
    return {
        "chunks": found,
        "documents": {d.source: (d.state, d.attributes, d.chunking, d.error_code, d.blob, d.created_at) for d in rows},
        "store": (store.name, store.description, store.metadata, store.chunking, store.expires_after_days),
    }


def answers(backend: Backend, store: Store) -> dict[str, list[tuple[str, str, float | None]]]:
    return {
        question: [
            (hit.filename, hit.text, hit.dense)
            for hit in retrieve(backend, [store], question, SearchOptions(mode="dense")).candidates
        ]
        for question in QUESTIONS
    }


# ---- honest ----------------------------------------------------------------------------------------------------------


def test_a_store_comes_back_as_it_went(exported: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rag.embedders.toy.ToyEmbedder.embed_documents", lambda *_: pytest.fail("embedded"))
        patch.setattr("rag.embedders.toy.ToyEmbedder.embed_queries", lambda *_: pytest.fail("embedded"))
        made = importing.import_store(backend, exported, None, quiet)
    with open_backend(toy_settings(exported.parent / "data"), jobs=False) as before:
        store = before.find_store("houses")
        assert shape(backend, made) == shape(before, store)
        assert len(shape(backend, made)["chunks"]) > 10
        assert made.public_id != store.public_id
        ids = {d.file_public_id for d in all_documents(before, store).values()}
        assert not ids & {d.file_public_id for d in all_documents(backend, made).values()}
        assert answers(backend, made) == answers(before, store)


def test_permission_tags_go_along(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path / "a")) as backend:
        store = fill(backend)
        wait_until_idle(backend)
        document = next(d for d in all_documents(backend, store).values() if d.state == "completed")
        intake.set_attributes(backend, store, document.file_public_id, permissions=["hr"])
        exporting.export_store(backend, store, tmp_path / "a.zip", quiet)
        made = importing.import_store(backend, tmp_path / "a.zip", "again", quiet)
        tags = {source: row.permissions for source, row in all_documents(backend, made).items()}
        assert tags.pop(document.source) == ["hr"]
        assert set(map(tuple, tags.values())) == {()}


def test_what_was_not_ingested_yet_is(exported: Path, tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path / "data")) as backend:
        made = importing.import_store(backend, exported, "again", quiet)
        wait_until_idle(backend)
        states = {source: d.state for source, d in all_documents(backend, made).items()}
        assert states.pop("empty.md") == "failed"
        assert set(states.values()) == {"completed"}
        (hit,) = [
            h for h in retrieve(backend, [made], "ingested either", SearchOptions()).candidates if "either" in h.text
        ]
        assert hit.filename == "new.md"
        document = all_documents(backend, made)["2.md"]
        assert "Not ingested yet" in (intake.current_text(backend, document) or "")


def test_other_tools_read_the_tables(exported: Path) -> None:
    found = members(exported)
    told = json.loads(found["manifest.json"])
    chunks = pq.read_table(io.BytesIO(found["chunks.parquet"])).to_pylist()
    vectors = pq.read_table(io.BytesIO(found["vectors.parquet"])).to_pylist()
    assert (len(chunks), len(vectors)) == (told["counts"]["chunks"], told["counts"]["vectors"])
    assert set(found) >= {"manifest.json", *archive.TABLES}
    assert {np.frombuffer(row["vector"], "<f4").shape for row in vectors} == {(384,)}
    for name, data in found.items():
        folder, _, key = name.rpartition("/")
        if folder:
            assert hashlib.sha256(data).hexdigest() == key
    assert not any("4.md" in line for line in found["documents.jsonl"].decode().splitlines())


def test_a_name_is_taken_once(exported: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    importing.import_store(backend, exported, None, quiet)
    with pytest.raises(ChangeRequest) as taken:
        importing.import_store(backend, exported, None, quiet)
    assert taken.value.code == "store_exists"
    before = everything(backend)
    monkeypatch.setattr(importing, "_require_free", quiet)
    with pytest.raises(ChangeRequest) as late:
        importing.import_store(backend, exported, None, quiet)
    assert late.value.code == "store_exists"
    assert everything(backend) == before
    importing.import_store(backend, exported, "another", quiet)


def test_an_export_needs_a_new_name_and_leaves_no_half(exported: Path, tmp_path: Path) -> None:
    with open_backend(toy_settings(exported.parent / "data"), jobs=False) as backend:
        store = backend.find_store("houses")
        with pytest.raises(ChangeRequest) as there:
            exporting.export_store(backend, store, exported, quiet)
        assert there.value.code == "file_exists"
        (tmp_path / "out").mkdir()
        with pytest.raises(RuntimeError):
            exporting.export_store(backend, store, tmp_path / "out" / "a.zip", _interrupt)
        assert list((tmp_path / "out").iterdir()) == []
        with pytest.raises(ChangeRequest) as nowhere:
            exporting.export_store(backend, store, tmp_path / "no" / "a.zip", quiet)
        assert nowhere.value.code == "file_unwritable"


def test_an_export_to_a_full_disk_is_told(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open_backend(toy_settings(exported.parent / "data"), jobs=False) as backend:
        store = backend.find_store("houses")
        monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: SIM115
        with pytest.raises(TryLater) as full:
            exporting.export_store(backend, store, tmp_path / "full.zip", quiet)
        assert full.value.code == "storage_full"


def _interrupt(*_: object) -> None:
    raise RuntimeError("interrupted")


# ---- hostile ---------------------------------------------------------------------------------------------------------


def lines(found: Members, name: str, change: Callable[[list[dict[str, Any]]], object]) -> Members:
    """The members with the lines of one changed."""
    rows = [json.loads(line) for line in found[name].splitlines()]
    change(rows)
    return {**found, name: b"".join(json.dumps(row).encode() + b"\n" for row in rows)}


def table(found: Members, name: str, change: Callable[[list[dict[str, Any]]], object], **options: Any) -> Members:
    """The members with the rows of a table changed."""
    read = pq.read_table(io.BytesIO(found[name]))
    rows = read.to_pylist()
    schema_ = change(rows)
    sink = io.BytesIO()
    plain = {"compression": "none", "use_dictionary": False, "store_schema": False, **options}
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema_ if isinstance(schema_, pa.Schema) else read.schema), sink, **plain
    )
    return {**found, name: sink.getvalue()}


def manifest(found: Members, change: Callable[[dict[str, Any]], object]) -> Members:
    told = json.loads(found["manifest.json"])
    change(told)
    return {**found, "manifest.json": json.dumps(told).encode()}


def wider(rows: list[dict[str, Any]]) -> pa.Schema:
    for row in rows:
        row["vector"] += b"\0\0\0\0"
    return pa.schema([pa.field("embedding_key", pa.binary(16), False), pa.field("vector", pa.binary(1540), False)])


def scaled(factor: float, first: float | None = None) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        vector = np.frombuffer(rows[3]["vector"], "<f4") * np.float32(factor)
        vector[0] = vector[0] if first is None else first
        rows[3]["vector"] = vector.tobytes()

    return change


def other_space(told: dict[str, Any]) -> None:
    told["space"]["definition"]["model"] = "house-made"
    canonical = json.dumps(told["space"]["definition"], sort_keys=True, ensure_ascii=True)
    told["space"]["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()[:32]


def failed(rows: list[dict[str, Any]]) -> int:
    return next(number for number, row in enumerate(rows) if row["state"] == "failed")


def without_a_document(rows: list[dict[str, Any]]) -> None:
    del rows[0]


def fewer(count: str) -> Callable[[dict[str, Any]], None]:
    def change(told: dict[str, Any]) -> None:
        told["counts"][count] -= 1

    return change


def first_text(found: Members) -> str:
    return next(name for name in found if name.startswith("texts/"))


HOSTILE: dict[str, tuple[Callable[[Members], Members], str, str]] = {
    "a form of tomorrow": (lambda m: manifest(m, lambda t: t.update(version=2)), "unknown_archive", "version 2"),
    "another form": (lambda m: manifest(m, lambda t: t.update(format="x")), "unknown_archive", "'x'"),
    "no manifest": (lambda m: {k: v for k, v in m.items() if k != "manifest.json"}, "archive_damaged", "manifest"),
    "an unknown field": (lambda m: manifest(m, lambda t: t.update(more=1)), "bad_archive", "more"),
    "a missing table": (lambda m: {k: v for k, v in m.items() if k != "files.jsonl"}, "archive_damaged", "files.jsonl"),
    "a missing text": (lambda m: {k: v for k, v in m.items() if k != first_text(m)}, "archive_damaged", "texts/"),
    "a text of other bytes": (lambda m: {**m, first_text(m): b"{}\nother"}, "archive_damaged", "texts/"),
    "a name that climbs": (lambda m: {**m, "originals/../../evil": b"x"}, "bad_archive", "evil"),
    "an absolute name": (lambda m: {**m, "/etc/passwd": b"x"}, "bad_archive", "passwd"),
    "a bomb": (lambda m: {**m, f"originals/{'0' * 64}": bytes(100 << 20)}, "bad_archive", "times its size"),
    "a long line": (lambda m: {**m, "files.jsonl": b'{"id": "' + b"x" * (5 << 20)}, "bad_archive", "line 1"),
    "an unfinished line": (lambda m: {**m, "files.jsonl": m["files.jsonl"][:-1]}, "bad_archive", "files.jsonl"),
    "a number as text": (lambda m: lines(m, "files.jsonl", lambda r: r[0].update(bytes="1")), "bad_archive", "bytes"),
    "a source twice": (
        lambda m: lines(m, "documents.jsonl", lambda r: r[0].update(source=r[1]["source"])),
        "bad_archive",
        "source",
    ),
    "not a number": (
        lambda m: {**m, "documents.jsonl": m["documents.jsonl"].replace(b'"number": 0', b'"number": NaN')},
        "bad_archive",
        "documents.jsonl",
    ),
    "a document of no file": (
        lambda m: lines(m, "documents.jsonl", lambda r: r[0].update(file=99)),
        "bad_archive",
        "file",
    ),
    "a failure without a reason": (
        lambda m: lines(m, "documents.jsonl", lambda r: r[0].update(state="failed")),
        "bad_archive",
        "why",
    ),
    "a way of splitting without sizes": (
        lambda m: lines(m, "documents.jsonl", lambda r: r[0].update(chunking={"type": "static"})),
        "bad_archive",
        "chunking",
    ),
    "a version twice": (
        lambda m: lines(m, "versions.jsonl", lambda r: r.append(dict(r[0], id=999))),
        "bad_archive",
        "999",
    ),
    "a completed document without text": (
        lambda m: lines(m, "documents.jsonl", lambda r: r[failed(r)].update(state="completed", error_code=None)),
        "bad_archive",
        "1 completed documents have no version",
    ),
    "chunks of no version": (lambda m: lines(m, "versions.jsonl", without_a_document), "bad_archive", "belongs to no"),
    "a span beside its text": (
        lambda m: table(m, "chunks.parquet", lambda r: r[2].update(start=1)),
        "bad_archive",
        "span",
    ),
    "a span beyond its text": (
        lambda m: table(m, "chunks.parquet", lambda r: r[2].update(end=10**9)),
        "bad_archive",
        "span",
    ),
    "a negative span": (
        lambda m: table(m, "chunks.parquet", lambda r: r[0].update(start=-5, end=-1, text="")),
        "bad_archive",
        "span",
    ),
    "another header": (lambda m: table(m, "chunks.parquet", lambda r: r[2].update(header="x")), "bad_archive", "key"),
    "a chunk left out": (lambda m: table(m, "chunks.parquet", lambda r: r[2].update(ordinal=9)), "bad_archive", "next"),
    "a path that is none": (
        lambda m: table(m, "chunks.parquet", lambda r: r[2].update(heading_path="{}")),
        "bad_archive",
        "heading path",
    ),
    "a vector too wide": (lambda m: table(m, "vectors.parquet", wider), "bad_archive", "columns"),
    "a vector too long": (lambda m: table(m, "vectors.parquet", scaled(1.01)), "bad_archive", "vector 3"),
    "a vector of nothing": (lambda m: table(m, "vectors.parquet", scaled(0)), "bad_archive", "vector 3"),
    "an infinite vector": (lambda m: table(m, "vectors.parquet", scaled(1.0, np.inf)), "bad_archive", "vector 3"),
    "a vector that is no number": (
        lambda m: table(m, "vectors.parquet", scaled(1.0, np.nan)),
        "bad_archive",
        "vector 3",
    ),
    "a vector left out": (
        lambda m: manifest(table(m, "vectors.parquet", lambda r: r.pop()), fewer("vectors")),
        "bad_archive",
        "no vector",
    ),
    "a packed table": (
        lambda m: table(m, "chunks.parquet", lambda r: None, compression="zstd"),
        "bad_archive",
        "without compression",
    ),
    "a table with a dictionary": (
        lambda m: table(m, "chunks.parquet", lambda r: None, use_dictionary=True),
        "bad_archive",
        "dictionaries",
    ),
    "no table": (lambda m: {**m, "chunks.parquet": b"PAR1PAR1"}, "bad_archive", "chunks.parquet"),
    "a wrong count": (lambda m: manifest(m, fewer("files")), "bad_archive", "files.jsonl"),
    "a space that nobody has here": (lambda m: manifest(m, other_space), "space_not_configured", "house-made"),
    "a fingerprint of another space": (
        lambda m: manifest(m, lambda t: t["space"].update(fingerprint="0" * 32)),
        "bad_archive",
        "fingerprint",
    ),
    "a scale that is none": (
        lambda m: manifest(m, lambda t: t["space"].update(calibration={"low": 1.0, "high": 0.0})),
        "invalid_calibration",
        "low",
    ),
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """An empty installation that every hostile archive is tried on."""
    with open_backend(toy_settings(tmp_path_factory.mktemp("victim") / "data"), jobs=False) as opened:
        yield opened


@pytest.mark.parametrize("case", HOSTILE)
def test_of_a_hostile_archive_nothing_is_left(case: str, exported: Path, tmp_path: Path, victim: Backend) -> None:
    change, code, word = HOSTILE[case]
    path = write(tmp_path / "hostile.zip", change(members(exported)))
    before = everything(victim)
    with pytest.raises(ChangeRequest) as refused:
        importing.import_store(victim, path, None, quiet)
    assert refused.value.code == code, refused.value.message
    assert word in refused.value.message
    assert everything(victim) == before
    assert set(before.values()) == {0}
    assert not list(tmp_path.rglob("*evil*"))


def test_a_wrong_checksum_is_told(exported: Path, tmp_path: Path, backend: Backend) -> None:
    found = lines(members(exported), "documents.jsonl", lambda rows: rows[0].update(attributes={"number": 7}))
    with pytest.raises(ChangeRequest, match=r"documents.jsonl: its SHA-256"):
        importing.import_store(backend, write(tmp_path / "a.zip", found, honest=False), None, quiet)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_half_copied_archive_is_told(exported: Path, tmp_path: Path, share: float) -> None:
    data = exported.read_bytes()
    (tmp_path / "half.zip").write_bytes(data[: int(len(data) * share)])
    with open_backend(toy_settings(tmp_path / "data"), jobs=False) as backend:
        with pytest.raises(ChangeRequest) as half:
            importing.import_store(backend, tmp_path / "half.zip", None, quiet)
        assert half.value.code == "archive_damaged"
        with pytest.raises(NotThere):
            importing.import_store(backend, tmp_path / "none.zip", None, quiet)


def test_damage_anywhere_is_told_or_does_no_harm(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    with open_backend(toy_settings(tmp_path / "data"), jobs=False) as backend:
        before = everything(backend)
        for number, at in enumerate(np.random.default_rng(5).integers(0, len(data), 40)):
            changed = bytearray(data)
            changed[at] ^= 0x55
            path = tmp_path / f"{number}.zip"
            path.write_bytes(changed)
            try:
                made = importing.import_store(backend, path, None, quiet)
            except (ChangeRequest, NotThere):
                assert everything(backend) == before
            else:  # a time stamp, say
                assert len(shape(backend, made)["chunks"]) > 10
                intake.delete_store(backend, made)
                before = everything(backend)


def test_a_size_that_lies_is_told(exported: Path, tmp_path: Path) -> None:
    """The zip's directory says that a text is shorter than it is."""
    found = members(exported)
    text = b"".join(encode_text({"blocks": [], "metadata": {}}, "x" * 1_000))
    name = f"texts/{hashlib.sha256(text).hexdigest()}"
    path = write(tmp_path / "lie.zip", {**found, name: text})
    data = path.read_bytes()
    at = data.rindex(name.encode()) - 46
    size = struct.unpack_from("<I", data, at + 24)[0]
    assert size == len(text)
    path.write_bytes(data[: at + 24] + struct.pack("<I", 10) + data[at + 28 :])
    with archive.reading(path, 1 << 20) as read, pytest.raises(ChangeRequest) as lie:
        list(read.pieces("texts", name.partition("/")[2]))
    assert lie.value.code == "archive_damaged"


# ---- crashes ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from ingest import importing
from tests.backends import open_backend, toy_settings
importing.AT_ONCE = 2
def tell(stage, done, total):
    print(stage, flush=True)
    if stage == sys.argv[3]:
        time.sleep(60)
with open_backend(toy_settings(Path(sys.argv[1])), jobs=False) as backend:
    importing.import_store(backend, Path(sys.argv[2]), None, tell)
"""


@pytest.mark.parametrize("stage", ["files", "documents", "vectors"])
def test_a_crash_leaves_nothing_to_see_and_is_swept(exported: Path, tmp_path: Path, stage: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "data"), str(exported), stage],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert any(line.strip() == stage for line in child.stdout)
        child.send_signal(signal.SIGKILL)
    with open_backend(toy_settings(tmp_path / "data"), jobs=False) as backend:
        left = everything(backend)
        assert left["files"] > 0
        with pytest.raises(NotThere):
            backend.find_store("houses")
        intake.sweep(backend)
        assert everything(backend) == left, "an import that may be alive is not touched"
        importing.sweep_imports(backend, older_than=-1.0)
        assert set(everything(backend).values()) == {0}
        importing.import_store(backend, exported, None, quiet)


def test_an_import_beside_a_server_is_not_touched(exported: Path, tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path / "data")) as backend:
        other = intake.create_store(backend, "other")

        def busy(stage: str, done: int, total: int) -> None:
            document = add_text(backend, other, f"{stage}{done}.md", "The red kettle.")
            wait_until_others_end(backend, document.id)
            intake.delete_documents(backend, list(all_documents(backend, other).values()))
            intake.sweep(backend)
            with pytest.raises(NotThere):
                backend.find_store("houses")

        made = importing.import_store(backend, exported, None, busy)
        wait_until_idle(backend)
        assert len(shape(backend, made)["chunks"]) > 10
        for key in {row["text_blob"] for row in shape(backend, made)["chunks"]}:
            read_blob(backend.blobs, key)


def wait_until_others_end(backend: Backend, number: int) -> None:
    documents = schema.documents.c
    state = "queued"
    while state != "completed":
        with backend.database.read() as connection:
            state = connection.execute(sa.select(documents.state).where(documents.id == number)).scalar_one()


def test_two_exports_of_one_state_hold_the_same(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported.parent / "data", tmp_path / "data")
    with open_backend(toy_settings(tmp_path / "data"), jobs=False) as backend:
        exporting.export_store(backend, backend.find_store("houses"), tmp_path / "again.zip", quiet)
    first, second = members(exported), members(tmp_path / "again.zip")
    assert {k: v for k, v in first.items() if k != "manifest.json"} == {
        k: v for k, v in second.items() if k != "manifest.json"
    }
