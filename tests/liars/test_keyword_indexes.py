from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from indexes.tantivy import TantivyIndex
from tests.contracts.keyword_index import CHECKS
from tests.liars.keyword_indexes import LIARS


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar: type[TantivyIndex], tmp_path: Path) -> None:
    assert catching(liar, tmp_path), f"{liar.__name__} passes every check"


def test_the_liars_are_many() -> None:
    assert len(LIARS) >= 25


def catching(liar: type[TantivyIndex], folder: Path) -> str | None:
    """The first check that fails."""
    folders = (folder / str(number) for number in itertools.count())
    for check in CHECKS:
        try:
            check(liar, next(folders))
        except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
            return check.__name__
    return None
