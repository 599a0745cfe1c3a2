from __future__ import annotations

import pytest

from indexes.flat import FlatIndex
from tests.contracts.vector_index import CHECKS, HERE_CHECKS
from tests.liars.vector_indexes import LIARS


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar: type[FlatIndex]) -> None:
    caught = [check.__name__ for check in CHECKS + HERE_CHECKS if _fails(check, liar)]
    assert caught, f"{liar.__name__} passes every check"


def test_the_liars_are_many_and_their_honest_parent_passes() -> None:
    assert len(LIARS) >= 25
    assert not [check.__name__ for check in CHECKS + HERE_CHECKS if _fails(check, FlatIndex)]


def _fails(check, kind) -> bool:
    try:
        check(kind)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
        return True
    return False
