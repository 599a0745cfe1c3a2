"""The catalog: fenced states, the flip, the change log, purging."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest, NotThere, TryLater
from indexes.filters import BOOLEAN, NUMBER, STRING
from rag.access import UNTAGGED, Caller
from rag.blobs import StoredBlob, read_blob
from rag.blobs.folder import BlobFolder
from rag.catalog import (
    batches,
    changes,
    chunks,
    documents,
    file_batches,
    files,
    generations,
    index_tasks,
    purge,
    schema,
    stores,
    vectors,
)
from rag.catalog.chunks import NewChunk, NewVersion
from rag.catalog.database import Database, open_database
from rag.catalog.records import DAY, Counts, Document, PageRequest, Store
from rag.context import Scalar
from rag.spaces import Space
from tests.contracts.filters import KEYS

TENANT = "default"
CALLER = Caller(TENANT)
SPACE = Space("toy", "toy-4", "", 4, "mean", True, "", "", 512)


@pytest.fixture
def database(catalog_url: str, tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path, catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> Store:
    with database.write() as connection:
        made = stores.create_store(connection, TENANT, "corpus")
        values = {
            "space_id": stores.ensure_space(connection, SPACE),
            "chunk_set_id": stores.make_chunk_set(connection, made.id, "f", {}),
            "embedder": "toy",
            "build": "toy",
            "vector_index": "flat",
            "keyword_index": "tantivy",
            "state": "live",
        }
        generations.create_generation(connection, made, values)
    return made


def put(database: Database, store: Store, source: str, blob: str = "0" * 64) -> Document:
    with database.write() as connection:
        file = files.add_file(connection, CALLER, f"{source}.txt", "assistants", StoredBlob(blob, 3))
        return documents.put_document(connection, CALLER, store, file, source, None)


def reload(database: Database, document: Document) -> Document:
    with database.read() as connection:
        return documents.get_documents(connection, [document.id])[0]


def write_version(database: Database, document: Document, texts: list[str], blob: str = "a" * 64) -> int:
    """A version with one chunk per text, and their vectors."""
    with database.write() as connection:
        generation = generations.live_generation(connection, document.store_id)
        new_version = NewVersion(document, title="t", media_type="text/plain", text_blob=blob, characters=9)
        version = chunks.put_versions(connection, [new_version])[document.id]
        keys = [vectors.embedding_key(text) for text in texts]
        new = [
            NewChunk(i, 10 * i, 10 * i + 5, None, 2, (), "", text, key)
            for i, (text, key) in enumerate(zip(texts, keys, strict=True))
        ]
        chunks.put_chunks(connection, generation.chunk_set_id, TENANT, {version: new})
        rows = np.eye(4, dtype=np.float32)[[i % 4 for i in range(len(texts))]]
        vectors.put_vectors(connection, generation.space_id, TENANT, keys, rows)
    return version


def complete(database: Database, document: Document, texts: list[str], blob: str = "a" * 64) -> int:
    version = write_version(database, document, texts, blob)
    with database.write() as connection:
        assert documents.publish(connection, {version: document})
    return version


def count(database: Database, table: sa.Table) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_the_migrated_schema_is_the_declared_one(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_catalog_from_a_newer_release_is_refused(database: Database, catalog_url: str, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ChangeRequest, match="newer release"):
        open_database(tmp_path, catalog_url)


def test_an_interrupted_transaction_leaves_nothing(database: Database, store: Store) -> None:
    def interrupted() -> None:
        with database.write() as connection:
            stores.create_store(connection, TENANT, "half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with database.read() as connection:
        assert [s.name for s in stores.list_stores(connection, CALLER, PageRequest()).rows] == ["corpus"]


def test_an_old_attempt_can_change_nothing(database: Database, store: Store) -> None:
    old = put(database, store, "a")
    version = write_version(database, old, ["one"])
    with database.write() as connection:
        assert documents.cancel(connection, old)
    cancelled = reload(database, old)
    with database.write() as connection:
        assert documents.retry(connection, cancelled)
    with database.write() as connection:
        assert not documents.publish(connection, {version: old})
        assert not documents.advance(connection, [old], "parsing")
        assert not documents.fail(connection, old.id, old.attempt, "server_error", "no")
        assert not documents.isolate(connection, old.id, old.attempt)
        assert not documents.cancel(connection, old)
    now = reload(database, old)
    assert (now.state, now.attempt) == ("queued", old.attempt + 2)
    with database.read() as connection:
        assert changes.visible_versions(connection, store.id) == []


def test_a_document_that_ended_is_not_moved_on(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    complete(database, document, ["one"])
    with database.write() as connection:
        assert not documents.fail(connection, document.id, document.attempt, "server_error", "late")
        assert not documents.advance(connection, [document], "embedding")
    assert reload(database, document).state == "completed"


def test_publishing_a_version_that_is_gone_changes_nothing(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    with pytest.raises(TryLater), database.write() as connection:
        documents.publish(connection, {999: document})
    assert reload(database, document).state == "queued"


def test_a_replacement_flips_in_one_step(database: Database, store: Store) -> None:
    first = put(database, store, "a")
    old = complete(database, first, ["one", "two"])
    second = put(database, store, "a", blob="1" * 64)
    assert (second.id, second.state) == (first.id, "queued")
    assert second.attempt > first.attempt
    new = write_version(database, second, ["three"])
    with database.read() as connection:
        assert changes.visible_versions(connection, store.id) == [old]
        before = stores.current_seq(connection, store.id)
    assert before is not None
    with database.write() as connection:
        assert documents.publish(connection, {new: second})
    with database.read() as connection:
        news = changes.read_changes(connection, store.id, before)
        assert news is not None
        assert (list(news.published), list(news.retired)) == ([new], [old])
        everything = changes.read_changes(connection, store.id, 0)
        assert everything is not None
        assert (list(everything.published), list(everything.retired)) == ([new], [])


def attach(
    database: Database, store: Store, source: str | None, blob: str, attributes: dict[str, Scalar] | None = None
) -> Document:
    with database.write() as connection:
        file = files.add_file(connection, CALLER, "a.txt", "assistants", StoredBlob(blob * 64, 3))
        files.own_file(connection, file.id)
        return documents.put_document(connection, CALLER, store, file, source, attributes)


def answering(database: Database, store: Store) -> tuple[list[int], dict[int, object]]:
    """The versions that answer, and the attributes that a view would filter by."""
    with database.read() as connection:
        ids = [d.id for d in documents.list_documents(connection, CALLER, store, PageRequest()).rows]
        return changes.visible_versions(connection, store.id), dict(changes.read_attributes(connection, ids))


@pytest.mark.parametrize("end", ["published", "failed", "cancelled"])
def test_new_attributes_take_effect_with_the_text_that_they_came_with(
    database: Database, store: Store, end: str
) -> None:
    first = attach(database, store, "a", "1", {"v": 1})
    old = complete(database, first, ["one"])
    second = attach(database, store, "a", "2", {"v": 2})
    assert (second.attributes, reload(database, second).attributes) == ({"v": 2}, {"v": 2})
    assert answering(database, store) == ([old], {first.id: {"v": 1}})
    with database.write() as connection:
        documents.set_attributes(connection, second, {"v": 3})
        documents.set_attributes(
            connection, documents.get_document(connection, CALLER, store, first.file_public_id), {"v": 0}
        )
    assert answering(database, store) == ([old], {first.id: {"v": 0}})
    if end == "published":
        new = complete(database, second, ["two"], blob="b" * 64)
        assert answering(database, store) == ([new], {first.id: {"v": 3}})
        with database.write() as connection:
            documents.set_attributes(connection, second, {"v": 4})
        assert answering(database, store) == ([new], {first.id: {"v": 4}})
        return
    with database.write() as connection:
        if end == "failed":
            documents.fail(connection, second.id, second.attempt, "empty", "nothing")
        else:
            documents.cancel(connection, second)
    assert answering(database, store) == ([old], {first.id: {"v": 0}})
    third = attach(database, store, "a", "3")
    new = complete(database, third, ["three"], blob="c" * 64)
    assert answering(database, store) == ([new], {first.id: {"v": 3}})


def test_an_attribute_is_found_by_its_name_and_kind_among_the_documents_that_answer(
    database: Database, store: Store
) -> None:
    keys, caller = [key for key in KEYS if key], Caller(store.tenant)
    held: list[dict[str, Scalar]] = [
        dict(zip(keys, itertools.cycle(values), strict=False))
        for values in (("x", '": 1', 'say "hi": '), (1, -2.5), (True, False))
    ]
    ids = [attach(database, store, f"{at}", f"{at + 1}", attributes) for at, attributes in enumerate(held)]
    with database.read() as connection:
        assert not documents.any_answers(connection, caller, store.id)
        assert documents.find_attribute(connection, caller, store.id, keys[0], None) is None
        assert documents.attribute_kinds(connection, caller, store.id) == {}
    for at, document in enumerate(ids):
        complete(database, document, ["text"], blob=f"{at}" * 64)
    with database.read() as connection:
        assert documents.any_answers(connection, caller, store.id)
        assert documents.attribute_kinds(connection, caller, store.id) == {
            key: {STRING, NUMBER, BOOLEAN} for key in keys
        }
        for key in keys:
            for document, kind in zip(ids, (STRING, NUMBER, BOOLEAN), strict=True):
                assert documents.find_attribute(connection, caller, store.id, key, kind) == document.id
                assert documents.find_attribute(connection, caller, store.id, key, kind, ids[0].id) in (None, ids[0].id)
            assert documents.find_attribute(connection, caller, store.id, key, None) is not None
            assert documents.find_attribute(connection, caller, store.id, f"{key}-", None) is None
            assert documents.find_attribute(connection, caller, store.id + 1, key, None) is None


def seen_by(database: Database, store: Store, *tags: str) -> list[str]:
    """The files of the documents that a caller with these tags is told of."""
    caller = Caller(TENANT, permissions=frozenset(tags))
    with database.read() as connection:
        page = PageRequest(order="asc")
        rows = documents.list_documents(connection, caller, store, page).rows
        counts = stores.count_documents(connection, caller, [store.id])[store.id]
        assert counts.total == len(rows)
        through = {file.public_id for file in files.list_files(connection, caller, page).rows}
        assert {row.file_public_id for row in rows} <= through
        return [row.file_public_id for row in rows]


def found_by(database: Database, store: Store, document: Document, *tags: str) -> bool:
    """Whether a caller with these tags is told of a file of a store by its id."""
    caller = Caller(TENANT, permissions=frozenset(tags))
    with database.read() as connection:
        try:
            documents.get_document(connection, caller, store, document.file_public_id)
        except NotThere:
            return False
        return True


def put_tagged(
    database: Database, store: Store, blob: str, tags: list[str] | None, caller: Caller = CALLER
) -> Document:
    with database.write() as connection:
        file = files.add_file(connection, caller, "a.txt", "assistants", StoredBlob(blob * 64, 3))
        return documents.put_document(connection, caller, store, file, "a", None, tags)


def test_tags_decide_who_is_told_of_a_document(database: Database, store: Store) -> None:
    document = put_tagged(database, store, "1", ["hr", "board", "hr"])
    assert document.permissions == ["board", "hr"]
    for tags, there in (((), False), (("x", "HR"), False), (("hr",), True), (("x", "board"), True)):
        assert bool(seen_by(database, store, *tags)) == there
        assert found_by(database, store, document, *tags) == there
    put(database, store, "open")
    assert len(seen_by(database, store)) == 1
    with database.write() as connection:
        documents.set_attributes(connection, document, permissions=[])
    complete(database, document, ["one"])
    assert len(seen_by(database, store)) == 2


def test_tags_of_a_replacement_come_with_its_text(database: Database, store: Store) -> None:
    first = put_tagged(database, store, "1", ["hr"])
    complete(database, first, ["one"])
    second = put_tagged(database, store, "2", [])
    # What answers is still for hr alone; and what is to come is told of to those only who see both.
    assert seen_by(database, store) == []
    assert seen_by(database, store, "hr") == [second.file_public_id]
    assert [found_by(database, store, one) for one in (first, second)] == [False, False]
    assert [found_by(database, store, one, "hr") for one in (first, second)] == [True, True]
    with database.read() as connection:
        assert changes.read_tags(connection, [first.id]) == {first.id: {"hr"}}
        assert changes.read_tags(connection, [first.id], coming=True) == {first.id: {UNTAGGED}}
    complete(database, second, ["two"], blob="b" * 64)
    assert seen_by(database, store) == [second.file_public_id]
    third = put_tagged(database, store, "3", ["legal"])
    assert found_by(database, store, second)
    assert not found_by(database, store, third)
    assert put_tagged(database, store, "4", None).permissions == ["legal"]


def test_nobody_replaces_what_they_do_not_see(database: Database, store: Store) -> None:
    first = put_tagged(database, store, "1", ["hr"])
    complete(database, first, ["one"])
    for tags in ((), ("x",)):
        stranger = Caller(TENANT, permissions=frozenset(tags))
        with pytest.raises(ChangeRequest) as caught:
            put_tagged(database, store, "2", None, stranger)
        assert caught.value.code == "source_not_available"
    put_tagged(database, store, "2", None, Caller(TENANT, permissions=frozenset({"hr"})))


def test_a_file_in_no_store_is_its_uploader_s(database: Database, store: Store) -> None:
    limited = {"permissions": frozenset[str]()}
    ann, bob = (Caller(TENANT, key_id="key", user=name, **limited) for name in ("ann", "bob"))
    with database.write() as connection:
        file = files.add_file(connection, ann, "a.txt", "assistants", StoredBlob("0" * 64, 3))
        for caller, there in ((ann, 1), (bob, 0), (Caller(TENANT), 1), (Caller("other"), 0)):
            assert len(files.list_files(connection, caller, PageRequest()).rows) == there
        documents.put_document(connection, ann, store, file, None, None, ["hr"])
        assert files.list_files(connection, ann, PageRequest()).rows == []
        granted = Caller(TENANT, stores=frozenset({store.id}))
        elsewhere = Caller(TENANT, stores=frozenset({store.id + 1}))
        assert len(files.list_files(connection, granted, PageRequest()).rows) == 1
        assert files.list_files(connection, elsewhere, PageRequest()).rows == []


def test_an_engine_is_told_of_tags_when_a_catalog_of_before_is_opened(catalog_url: str, tmp_path: Path) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with closing(open_database(tmp_path, catalog_url)) as database:
        script = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
        with database.write() as connection:
            made = [stores.create_store(connection, TENANT, name) for name in ("remote", "local")]
            for one, index in zip(made, ("qdrant", "faiss"), strict=True):
                values = {
                    "space_id": stores.ensure_space(connection, SPACE),
                    "chunk_set_id": stores.make_chunk_set(connection, one.id, "f", {}),
                    "embedder": "toy",
                    "build": "toy",
                    "vector_index": index,
                    "keyword_index": index,
                    "state": "live",
                }
                generations.create_generation(connection, one, values)
        document, _ = [put(database, one, "a") for one in made]
        with database.write() as connection:
            down = {"fn": lambda revision, _context: script._downgrade_revs("0005", revision)}
            context = MigrationContext.configure(connection, opts=down)
            with Operations.context(context):
                context.run_migrations()
    with closing(open_database(tmp_path, catalog_url)) as database, database.read() as connection:
        assert [task.document_id for task in index_tasks.waiting(connection)] == [document.id]
        assert changes.read_tags(connection, [document.id]) == {document.id: {UNTAGGED}}


def test_what_answers_is_found_by_its_file_until_it_is_replaced(database: Database, store: Store) -> None:
    first = attach(database, store, "a", "1", {"v": 1})
    old = complete(database, first, ["one", "two"])
    second = attach(database, store, "a", "2", {"v": 2})
    with database.read() as connection:
        before = documents.get_document(connection, CALLER, store, first.file_public_id)
        after = documents.get_document(connection, CALLER, store, second.file_public_id)
        assert (before.state, before.blob, before.attributes, before.chunks_total) == (
            "completed",
            "1" * 64,
            {"v": 1},
            2,
        )
        assert (after.state, after.blob, after.attributes, after.chunks_total) == ("queued", "2" * 64, {"v": 2}, 0)
        version = chunks.published_version(connection, before)
        assert version is not None
        assert version.id == old
        assert chunks.published_version(connection, after) is None
        assert [d.id for d in documents.documents_of_file(connection, CALLER, first.file_id)] == [first.id]
        assert [d.file_id for d in documents.list_documents(connection, CALLER, store, PageRequest()).rows] == [
            second.file_id
        ]
        assert files.orphans(connection) == []
    new = complete(database, second, ["three"], blob="b" * 64)
    with database.read() as connection:
        with pytest.raises(NotThere):
            documents.get_document(connection, CALLER, store, first.file_public_id)
        version = chunks.published_version(connection, reload(database, second))
        assert version is not None
        assert version.id == new


@pytest.mark.parametrize("which", ["old", "new"])
def test_deleting_by_the_old_file_takes_its_text_and_by_the_new_one_everything(
    database: Database, store: Store, which: str
) -> None:
    first = attach(database, store, "a", "1")
    complete(database, first, ["one"])
    second = attach(database, store, "a", "2")
    gone = first if which == "old" else second
    with database.write() as connection:
        for document in documents.documents_of_file(connection, CALLER, gone.file_id):
            documents.delete_document(connection, document)
    with database.write() as connection:
        assert changes.visible_versions(connection, store.id) == []
        for version in purge.purgeable_versions(connection):
            purge.purge_version(connection, version)
        left = documents.list_documents(connection, CALLER, store, PageRequest()).rows
        orphans = {file.id for file in files.orphans(connection)}
    if which == "old":
        assert [(d.file_id, d.state) for d in left] == [(second.file_id, "queued")]
        assert orphans == {first.file_id}
        complete(database, second, ["two"], blob="b" * 64)
    else:
        assert left == []
        assert orphans == {first.file_id, second.file_id}


def test_a_deletion_that_comes_after_the_flip_leaves_the_new_text(database: Database, store: Store) -> None:
    first = attach(database, store, "a", "1")
    complete(database, first, ["one"])
    second = attach(database, store, "a", "2")
    with database.read() as connection:
        before = documents.get_document(connection, CALLER, store, first.file_public_id)
    new = complete(database, second, ["two"], blob="b" * 64)
    with database.write() as connection:
        documents.delete_document(connection, before)
    assert answering(database, store)[0] == [new]


def test_a_store_holds_a_file_once(database: Database, store: Store) -> None:
    first = attach(database, store, "a", "1")
    complete(database, first, ["one"])
    second = attach(database, store, "a", "2")
    with database.write() as connection:
        other = stores.create_store(connection, TENANT, "other")
        for document in (first, second):
            file = files.get_file(connection, CALLER, document.file_public_id)
            with pytest.raises(ChangeRequest, match="'a'") as caught:
                documents.put_document(connection, CALLER, store, file, "b", None)
            assert caught.value.code == "file_in_store"
            assert (
                documents.put_document(connection, CALLER, other, file, file.public_id, None).source == file.public_id
            )
        again = documents.put_document(connection, CALLER, store, file, None, None)
        assert (again.id, again.source, again.state) == (second.id, "a", "queued")


def test_the_same_bytes_again_are_no_work_unless_they_failed(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    complete(database, document, ["one"])
    assert put(database, store, "a").state == "completed"
    other = put(database, store, "b")
    with database.write() as connection:
        documents.fail(connection, other.id, other.attempt, "no_text", "nothing in it")
    assert put(database, store, "b").state == "queued"


def test_two_documents_of_the_same_content_share_vectors_and_lose_them_together(
    database: Database, store: Store
) -> None:
    one, two = put(database, store, "a"), put(database, store, "b")
    complete(database, one, ["same", "only in one"])
    complete(database, two, ["same"])
    assert count(database, schema.vectors) == 2
    with database.write() as connection:
        documents.delete_document(connection, one)
    with database.read() as connection:
        (gone,) = purge.purgeable_versions(connection)
    with database.write() as connection:
        text = purge.purge_version(connection, gone)
        assert purge.unused_texts(connection, [str(text)]) == []
    assert (count(database, schema.vectors), count(database, schema.chunks)) == (1, 1)
    with database.write() as connection:
        documents.delete_document(connection, two)
    with database.write() as connection:
        for version in purge.purgeable_versions(connection):
            assert purge.unused_texts(connection, [str(purge.purge_version(connection, version))]) == ["a" * 64]
    assert (count(database, schema.vectors), count(database, schema.chunks)) == (0, 0)


def test_chunk_ids_are_never_used_again(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    version = write_version(database, document, ["one", "two", "three"])
    with database.read() as connection:
        highest = connection.execute(sa.select(sa.func.max(schema.chunks.c.id))).scalar_one()
    with database.write() as connection:
        purge.purge_version(connection, version)
    write_version(database, document, ["four"])
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.min(schema.chunks.c.id))).scalar_one() > highest


@pytest.mark.parametrize("state", ["queued", "parsing", "splitting", "embedding", "completed", "failed", "cancelled"])
def test_a_document_can_be_deleted_in_any_state(database: Database, store: Store, state: str) -> None:
    document = put(database, store, "a")
    with database.write() as connection:
        if state == "failed":
            documents.fail(connection, document.id, document.attempt, "empty", "nothing")
        elif state == "cancelled":
            documents.cancel(connection, document)
        elif state != "completed":
            documents.advance(connection, [document], state)  # type: ignore[arg-type]
    if state == "completed":
        complete(database, document, ["one"])
    with database.write() as connection:
        documents.delete_document(connection, reload(database, document))
    with database.read() as connection:
        assert documents.get_documents(connection, [document.id]) == []
        assert changes.visible_versions(connection, store.id) == []
        assert not batches.anything_waiting(connection)


def test_batches_take_the_oldest_of_one_store_within_bounds(database: Database, store: Store) -> None:
    ids = [put(database, store, f"a{i}").id for i in range(5)]
    with database.write() as connection:
        worker = batches.join(connection, "one")
        assert batches.claim(connection, worker, "1", most=2, most_bytes=100) == ids[:2]
        assert batches.claim(connection, worker, "2", most=8, most_bytes=5) == ids[2:3]
        assert batches.claim(connection, worker, "3", most=8, most_bytes=1) == ids[3:4]
        assert batches.claim(connection, worker, "4", most=8, most_bytes=100) == ids[4:]
        assert batches.claim(connection, worker, "5", most=8, most_bytes=100) == []
        assert batches.open_batches(connection, worker) == ["1", "2", "3", "4"]
        assert batches.count_open(connection) == 4


def test_a_large_upload_does_not_hold_up_another_store(database: Database, store: Store) -> None:
    with database.write() as connection:
        other = stores.create_store(connection, TENANT, "other")
    ids = [put(database, store, f"a{i}").id for i in range(6)]
    elsewhere = [put(database, other, f"b{i}").id for i in range(2)]
    with database.write() as connection:
        worker = batches.join(connection, "one")
        taken = [batches.claim(connection, worker, str(n), most=2, most_bytes=100, most_of_store=2) for n in range(4)]
        assert taken == [ids[:2], elsewhere, ids[2:4], []]
        assert batches.anything_waiting(connection)


def test_what_a_dead_worker_had_goes_on_elsewhere_and_the_dead_is_refused(database: Database, store: Store) -> None:
    first, second = put(database, store, "a"), put(database, store, "b")
    with database.write() as connection:
        dead, alive = batches.join(connection, "dead"), batches.join(connection, "alive")
        batches.claim(connection, dead, "old", most=8, most_bytes=100)
        documents.advance(connection, [first], "embedding")
        chunks.put_versions(connection, [NewVersion(first, "A", "text/plain", "7" * 64, characters=4)])
        connection.execute(sa.update(schema.workers).where(schema.workers.c.id == dead).values(beat_at=1.0))
        assert batches.anyone_silent(connection, 60)
        assert batches.bury(connection, 60) == ["dead"]
        assert not batches.beat(connection, dead)
        assert batches.beat(connection, alive)
        assert batches.anything_ownerless(connection)
        assert batches.adopt(connection, alive, "new") == ("old", batches.Batch("new", crashes=1))
        assert batches.adopt(connection, alive, "newer") is None
    with database.write() as connection:
        assert documents.active_of_batch(connection, "old") == []
        mine = documents.active_of_batch(connection, "new")
        assert [(d.id, d.state, d.attempt) for d in mine] == [(first.id, "embedding", 2), (second.id, "queued", 2)]
        # What the dead one had parsed is the work of the next attempt, and it cannot publish it any more.
        (version,) = chunks.versions_of(connection, [mine[0]])
        assert chunks.versions_of(connection, [first]) == {}
        assert not documents.publish(connection, {version: first})
        assert not documents.advance(connection, [second], "parsing")
        assert documents.publish(connection, {version: mine[0]})
        assert batches.open_batches(connection, alive) == ["new"]


def test_what_a_worker_leaves_behind_is_nobodys_crash(database: Database, store: Store) -> None:
    put(database, store, "a")
    with database.write() as connection:
        leaving, staying = batches.join(connection, "leaving"), batches.join(connection, "staying")
        batches.claim(connection, leaving, "old", most=8, most_bytes=100)
        batches.leave(connection, leaving)
        assert connection.execute(sa.select(schema.workers.c.name)).scalars().all() == ["staying"]
        assert not batches.anyone_silent(connection, 60)
        assert batches.adopt(connection, staying, "new") == ("old", batches.Batch("new", crashes=0))


def test_a_batch_without_work_is_not_adopted(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    with database.write() as connection:
        leaving, staying = batches.join(connection, "leaving"), batches.join(connection, "staying")
        batches.claim(connection, leaving, "old", most=8, most_bytes=100)
        documents.fail(connection, document.id, document.attempt, "empty", "nothing")
        batches.leave(connection, leaving)
        assert batches.adopt(connection, staying, "new") is None
        assert not batches.anything_ownerless(connection)


def test_an_isolated_document_goes_alone(database: Database, store: Store) -> None:
    ids = [put(database, store, f"a{i}").id for i in range(3)]
    with database.write() as connection:
        worker = batches.join(connection, "one")
        batches.claim(connection, worker, "1", 3, 100)
        assert documents.isolate(connection, ids[1], 1)
        assert batches.claim(connection, worker, "2", 3, 100) == [ids[1]]


def test_the_same_bytes_again_let_the_first_file_go(database: Database, store: Store) -> None:
    document = put(database, store, "a", blob="1" * 64)
    complete(database, document, ["text"])
    again = put(database, store, "a", blob="1" * 64)
    assert again.state == "completed"
    at_work = put(database, store, "b", blob="2" * 64)
    put(database, store, "b", blob="2" * 64)
    complete(database, at_work, ["other text"])
    with database.write() as connection:
        for old in (document, at_work):
            files.drop_file(connection, files.get_file(connection, CALLER, old.file_public_id))
        shown = chunks.visible_chunks(connection, range(1, 10))
    now = {reload(database, document).file_public_id, reload(database, at_work).file_public_id}
    assert {chunk.file_id for chunk in shown.values()} == now
    assert len(shown) == 2


def test_a_change_in_a_store_that_is_gone_says_so(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    with database.write() as connection:
        stores.delete_store(connection, store)
    with pytest.raises(NotThere), database.write() as connection:
        documents.delete_document(connection, document)
    with pytest.raises(NotThere), database.write() as connection:
        documents.set_attributes(connection, document, {"a": 1})


def test_more_texts_than_a_query_has_parameters(database: Database) -> None:
    keys = [f"{i:064x}" for i in range(260_000)]
    with database.read() as connection:
        assert len(purge.unused_texts(connection, keys)) == len(keys)


def test_what_another_process_is_writing_is_not_swept(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)

    def pieces() -> Iterator[bytes]:
        yield b"one"
        BlobFolder(tmp_path).sweep_incoming()
        yield b"two"

    assert read_blob(blobs, blobs.put(pieces()).key) == b"onetwo"
    (tmp_path / "incoming" / "left").write_bytes(b"half")
    blobs.sweep_incoming(older_than=-1.0)
    assert not list((tmp_path / "incoming").iterdir())


def test_a_log_that_was_pruned_says_so(database: Database, store: Store) -> None:
    for i in range(6):
        document = put(database, store, "a", blob=str(i) * 64)
        complete(database, document, [f"text {i}"])
    with database.write() as connection:
        for version in purge.purgeable_versions(connection):
            purge.purge_version(connection, version)
        purge.prune_log(connection, store.id, seq=6, kept=3)
    with database.read() as connection:
        assert changes.read_changes(connection, store.id, 2) is None
        news = changes.read_changes(connection, store.id, 3)
        assert news is not None
        assert (len(news.published), len(news.retired)) == (1, 1)


def test_lists_page_both_ways(database: Database, store: Store) -> None:
    names = [put(database, store, f"a{i}").file_public_id for i in range(7)]
    with database.read() as connection:

        def page(**request: object) -> tuple[list[str], bool]:
            found = documents.list_documents(connection, CALLER, store, PageRequest(**request))  # type: ignore[arg-type]
            return [row.file_public_id for row in found.rows], found.has_more

        assert page(limit=3, order="asc") == (names[:3], True)
        assert page(limit=3, order="asc", after=names[2]) == (names[3:6], True)
        assert page(limit=3, order="asc", after=names[5]) == (names[6:], False)
        assert page(limit=3, order="asc", before=names[5]) == (names[2:5], True)
        assert page(limit=3, order="desc", before=names[3]) == (names[4:7][::-1], False)
        assert page(limit=2, order="desc") == (names[:4:-1], True)
        with pytest.raises(ChangeRequest, match="cursor"):
            page(after="file-of-nobody")


def test_another_tenants_rows_are_not_there(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    with database.read() as connection:
        with pytest.raises(NotThere):
            stores.get_store(connection, "someone else", store.public_id)
        with pytest.raises(NotThere):
            files.get_file(connection, Caller("someone else"), document.file_public_id)
        assert files.list_files(connection, Caller("someone else"), PageRequest()).rows == []


def test_a_deleted_store_leaves_nothing(database: Database, store: Store) -> None:
    complete(database, put(database, store, "a"), ["one", "two"])
    put(database, store, "b")
    with database.write() as connection:
        assert stores.delete_store(connection, store) == ["a" * 64]
    for table in (schema.documents, schema.versions, schema.chunks, schema.vectors, schema.generations):
        assert count(database, table) == 0


def test_an_owned_file_goes_with_its_last_document(database: Database, store: Store) -> None:
    document = put(database, store, "a")
    with database.write() as connection:
        files.own_file(connection, document.file_id)
        assert files.orphans(connection) == []
        documents.delete_document(connection, document)
        assert [file.public_id for file in files.orphans(connection)] == [document.file_public_id]


def test_a_file_batch_counts_lists_and_stops_its_own_documents(database: Database, store: Store) -> None:
    mine = [put(database, store, name) for name in ("a", "b", "c")]
    other = put(database, store, "other")
    with database.write() as connection:
        batch = file_batches.create_batch(connection, store, [document.id for document in mine])
        beside = file_batches.create_batch(connection, store, [other.id, mine[0].id])
    complete(database, mine[0], ["text"])
    with database.read() as connection:
        assert file_batches.count_documents(connection, CALLER, batch) == Counts(in_progress=2, completed=1)
        page = file_batches.list_documents(connection, CALLER, store, batch, PageRequest(2, "asc"), None)
        assert ([row.source for row in page.rows], page.has_more) == (["a", "b"], True)
        done = file_batches.list_documents(connection, CALLER, store, batch, PageRequest(), ("completed",))
        assert [row.source for row in done.rows] == ["a"]
        cursor = PageRequest(after=other.file_public_id)
        with pytest.raises(ChangeRequest):
            file_batches.list_documents(connection, CALLER, store, batch, cursor, None)
    with database.write() as connection:
        assert file_batches.cancel(connection, CALLER, batch)
        assert not file_batches.cancel(connection, CALLER, batch)
    with database.read() as connection:
        assert file_batches.count_documents(connection, CALLER, batch) == Counts(completed=1, cancelled=2)
        assert file_batches.count_documents(connection, CALLER, beside) == Counts(in_progress=1, completed=1)
        assert file_batches.get_batch(connection, store, batch.public_id).cancelled
        assert not file_batches.get_batch(connection, store, beside.public_id).cancelled
    with database.write() as connection:
        documents.delete_document(connection, reload(database, mine[1]))
    with database.read() as connection:
        assert file_batches.count_documents(connection, CALLER, batch).total == 2
    with database.write() as connection:
        stores.delete_store(connection, store)
    assert (count(database, schema.file_batches), count(database, schema.file_batch_documents)) == (0, 0)


def test_a_document_is_split_in_its_own_way_only_where_that_is_another(database: Database, store: Store) -> None:
    own = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    with database.write() as connection:
        file = files.add_file(connection, CALLER, "a.txt", "assistants", StoredBlob("0" * 64, 3))

        def again(chunking: dict[str, object] | None) -> Document:
            return documents.put_document(connection, CALLER, store, file, None, None, chunking=chunking)

        assert (again(dict(store.chunking)).chunking, again(None).attempt) == (None, 1)
        assert (again(own).chunking, again(own).attempt) == (own, 2)
        assert (again(None).chunking, again(None).attempt) == (own, 2)
        back = again(dict(store.chunking))
        assert (back.chunking, back.attempt, back.state) == (None, 3, "queued")


def test_a_file_that_has_expired_is_not_there(database: Database, store: Store) -> None:
    with database.write() as connection:
        blob = StoredBlob("0" * 64, 3)
        gone = files.add_file(connection, CALLER, "gone", "assistants", blob, expires_after=0)
        stays = files.add_file(connection, CALLER, "stays", "assistants", blob, expires_after=3600)
    with database.read() as connection:
        assert [file.public_id for file in files.expired_files(connection)] == [gone.public_id]
        assert [row.public_id for row in files.list_files(connection, CALLER, PageRequest()).rows] == [stays.public_id]
        assert files.get_file(connection, CALLER, stays.public_id).expires_at == stays.created_at + 3600
        with pytest.raises(NotThere):
            files.get_file(connection, CALLER, gone.public_id)


def test_nothing_makes_an_expired_store_active_again(database: Database, store: Store) -> None:
    document = put(database, store, "a")

    def aged(days: int) -> Store:
        with database.write() as connection:
            then = {"last_active_at": int(time.time()) - days * DAY, "expires_after_days": 2}
            connection.execute(sa.update(schema.stores).values(then))
        return seen()

    def seen() -> Store:
        with database.read() as connection:
            return stores.get_store(connection, TENANT, store.public_id)

    def use() -> None:
        with database.write() as connection:
            stores.touch_store(connection, store.id)
            stores.update_store(connection, store, {"name": "another"})
            stores.next_seq(connection, store.id)

    assert not aged(1).expired
    use()
    assert seen().last_active_at >= time.time() - 60
    old = aged(2)
    with pytest.raises(ChangeRequest, match="has expired"):
        stores.require_active(old)
    use()
    assert (seen().expired, seen().last_active_at) == (True, old.last_active_at)
    with database.write() as connection:
        assert [found.id for found in stores.expired_stores(connection)] == [store.id]
        documents.delete_document(connection, document)
        assert stores.expired_stores(connection) == []
