"""Every blob store against the contract; what is particular to stores on other machines, and their errors."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import fsspec
import httpx
import pytest
from fsspec.implementations.local import LocalFileSystem

from indexes.errors import ChangeRequest, NotThere, TryLater, Unsupported
from rag.blobs import open_blobs, read_blob, shown_url, try_out
from tests.contracts.blob_store import CHECKS, Place, data
from tests.s3 import KEY, SECRET, make_bucket


class RenamingFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Stands for SFTP and its like: what is written grows where it lies, and a rename is atomic."""

    protocol = "renaming"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(str(path).removeprefix("renaming://")))


fsspec.register_implementation("renaming", RenamingFileSystem, clobber=True)


@pytest.fixture(params=["folder", "file", "memory", "renaming", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(lambda: open_blobs(tmp_path), None)
    if request.param == "file":
        return Place(lambda: open_blobs(tmp_path, f"file://{tmp_path}/else where"), None)
    if request.param == "s3":
        url = make_bucket(request.getfixturevalue("s3"), f"bucket-{secrets.token_hex(6)}")
    else:
        url = f"{request.param}://{tmp_path}/elsewhere"
    return Place(lambda: open_blobs(tmp_path, url), damaging(tmp_path, url), 1.0 if request.param == "s3" else 0.05)


def damaging(folder: Path, url: str) -> Callable[[str], None]:
    def damage(key: str) -> None:
        store = open_blobs(folder, url)
        path = store._path(key)  # type: ignore[attr-defined]
        filesystem = store._fs  # type: ignore[attr-defined]
        content = bytearray(filesystem.cat_file(path))
        content[-1] ^= 1
        filesystem.pipe_file(path, bytes(content))

    return damage


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(place: Place, check: Callable[[Place], None]) -> None:
    check(place)


def test_nothing_stays_on_this_machine(place: Place, tmp_path: Path) -> None:
    store = place.open()
    made = store.put([data(100_000)])
    with store.local(made.key) as path:
        assert path.is_file()
    incoming = [folder for folder in tmp_path.rglob("incoming") if folder.is_dir()]
    assert incoming
    assert [left for folder in incoming for left in folder.iterdir()] == []


def test_what_a_crash_left_is_swept_once_it_is_old(place: Place, tmp_path: Path) -> None:
    store = place.open()
    for folder in tmp_path.rglob("incoming"):
        (folder / "left").write_bytes(b"half")
    store.sweep_incoming()
    assert list(tmp_path.rglob("left"))
    store.sweep_incoming(older_than=-60.0)
    assert not list(tmp_path.rglob("left"))


def test_what_a_crash_left_aside_in_a_store_that_renames_is_swept(tmp_path: Path) -> None:
    store = open_blobs(tmp_path, f"renaming://{tmp_path}/elsewhere")
    store.put([b"whole"])
    left = tmp_path / "elsewhere" / "incoming" / "left"
    left.write_bytes(b"half")
    store.sweep_incoming()
    assert left.exists()
    store.sweep_incoming(older_than=-60.0)
    assert not left.exists()
    assert [len(keys) for keys in store.keys(-60.0)] == [1]


def test_uploads_in_parts_that_a_crash_left_are_given_up_and_no_others(s3: str, tmp_path: Path) -> None:
    url = make_bucket(s3, "parts")
    store = open_blobs(tmp_path, url)
    filesystem = store._fs  # type: ignore[attr-defined]
    for key in ("some/prefix/aa/" + "a" * 64, "some/other/thing"):
        filesystem.call_s3("create_multipart_upload", Bucket="parts", Key=key)
    assert len(filesystem.list_multipart_uploads("parts")) == 2
    # The server says of every upload that it was begun in 2010.
    store.sweep_incoming(older_than=60 * 365 * 86_400)
    assert len(filesystem.list_multipart_uploads("parts")) == 2
    store.sweep_incoming()
    assert [upload["Key"] for upload in filesystem.list_multipart_uploads("parts")] == ["some/other/thing"]


def test_a_large_blob_goes_in_parts_and_leaves_none(s3: str, tmp_path: Path) -> None:
    store = open_blobs(tmp_path, make_bucket(s3, "large"))
    piece = data(1 << 20)
    made = store.put(piece for _ in range(120))
    assert made.size == 120 << 20
    assert sum(map(len, store.pieces(made.key))) == made.size
    filesystem = store._fs  # type: ignore[attr-defined]
    assert "-" in filesystem.info(store._path(made.key))["ETag"]  # type: ignore[attr-defined]
    assert not filesystem.list_multipart_uploads("large")


def test_another_machine_sees_what_was_written_and_deleted_meanwhile(s3: str, tmp_path: Path) -> None:
    """Nothing that was listed or looked up is kept."""
    url = make_bucket(s3, "fresh")
    here, there = open_blobs(tmp_path / "a", url), open_blobs(tmp_path / "b", url)
    made = here.put([b"one"])
    assert list(there.keys(-60.0)) == [[made.key]]
    assert there.exists(made.key)
    here.delete([made.key])
    assert list(there.keys(-60.0)) == []
    assert not there.exists(made.key)
    other = here.put([b"two"])
    assert list(there.keys(-60.0)) == [[other.key]]


@pytest.mark.parametrize(
    ("url", "kind", "code"),
    [
        ("plain words", ChangeRequest, "bad_blobs_url"),
        ("file://relative/folder", ChangeRequest, "bad_blobs_url"),
        ("https://[secret-canary", ChangeRequest, "bad_blobs_url"),
        ("nosuch://user:secret-canary@bucket", Unsupported, "unknown_blobs"),
    ],
)
def test_an_address_that_names_no_store_is_refused(url: str, kind: type, code: str, tmp_path: Path) -> None:
    with pytest.raises(kind) as refused:
        open_blobs(tmp_path, url)
    assert refused.value.code == code
    assert "canary" not in str(refused.value)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError("Install adlfs to access Azure Blob Storage")

    monkeypatch.setattr("rag.blobs.remote.fsspec.get_filesystem_class", missing)
    with pytest.raises(Unsupported, match=r"pip install 'rag\[s3\]'"):
        open_blobs(tmp_path, "s3://bucket")
    with pytest.raises(Unsupported, match="Install adlfs"):
        open_blobs(tmp_path, "abfs://bucket")


def test_a_bucket_that_is_not_there_is_called_so(s3: str, tmp_path: Path) -> None:
    store = open_blobs(tmp_path, f"s3://nobodys-bucket/x?endpoint_url={s3}&key={KEY}&secret={SECRET}")
    with pytest.raises(ChangeRequest, match="s3://nobodys-bucket/x") as refused:
        store.put([b"x"])
    assert refused.value.code == "no_such_bucket"
    assert SECRET not in str(refused.value)
    with pytest.raises(NotThere):
        store.pieces("a" * 64)


def test_a_store_that_does_not_answer_is_tried_later(tmp_path: Path) -> None:
    store = open_blobs(tmp_path, f"s3://bucket?endpoint_url=http://127.0.0.1:9&key={KEY}&secret={SECRET}")
    for act in (lambda: store.put([b"x"]), lambda: store.exists("a" * 64), lambda: store.delete(["a" * 64])):
        with pytest.raises(TryLater, match="s3://bucket") as refused:
            act()
        assert refused.value.code == "blobs_unavailable"
        assert SECRET not in str(refused.value)


def test_wrong_credentials_are_called_so(s3: str, tmp_path: Path) -> None:
    store = open_blobs(tmp_path, make_bucket(s3, "guarded"))
    httpx.post(f"{s3}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()
    try:
        for act in (lambda: store.put([b"x"]), lambda: store.exists("a" * 64), lambda: try_out(store)):
            with pytest.raises(ChangeRequest, match="does not let this process in") as refused:
                act()
            assert refused.value.code == "blobs_refused"
            assert SECRET not in str(refused.value)
    finally:
        httpx.post(f"{s3}/moto-api/reset-auth", content=b"inf", trust_env=False).raise_for_status()


def test_missing_credentials_are_called_so(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_EC2_METADATA_DISABLED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_blobs(tmp_path, f"s3://bucket?endpoint_url={s3}")
    with pytest.raises(ChangeRequest, match="redentials") as refused:
        store.put([b"x"])
    assert refused.value.code == "blobs_refused"


def test_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = open_blobs(tmp_path, f"renaming://{tmp_path}/elsewhere")
    monkeypatch.setattr(RenamingFileSystem, "put_file", full)
    with pytest.raises(TryLater) as refused:
        store.put([b"x"])
    assert refused.value.code == "storage_full"


def test_what_is_shown_holds_no_secret() -> None:
    assert shown_url("sftp://user:canary@host/folder?password=canary") == "sftp://host/folder"
    assert shown_url("s3://bucket/prefix?key=canary") == "s3://bucket/prefix"


def test_a_store_can_be_tried_out(place: Place) -> None:
    store = place.open()
    try_out(store)
    assert list(store.keys(-60.0)) in ([], [[]])
    with pytest.raises(NotThere):
        read_blob(store, "a" * 64)
