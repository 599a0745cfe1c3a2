from __future__ import annotations

import secrets
from pathlib import Path

import fsspec
import pytest

from rag.blobs.remote import RemoteBlobs
from tests.contracts.blob_store import CHECKS, Place
from tests.liars.blob_stores import LIARS


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar: type[RemoteBlobs], tmp_path: Path) -> None:
    caught = [check.__name__ for check in CHECKS if _fails(check, liar, tmp_path)]
    assert caught, f"{liar.__name__} passes every check"


def test_the_liars_are_many_and_their_honest_parent_passes(tmp_path: Path) -> None:
    assert len(LIARS) >= 25
    assert not [check.__name__ for check in CHECKS if _fails(check, RemoteBlobs, tmp_path)]


def _fails(check, kind, folder: Path) -> bool:
    root = f"/liars/{secrets.token_hex(8)}"

    def damage(key: str) -> None:
        memory, path = fsspec.filesystem("memory"), f"{root}/{key[:2]}/{key}"
        content = memory.cat_file(path)
        memory.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))

    try:
        check(Place(lambda: kind(f"memory:/{root}", folder / root[1:]), damage))
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
        return True
    finally:
        if fsspec.filesystem("memory").exists(root):
            fsspec.filesystem("memory").rm(root, recursive=True)
    return False
