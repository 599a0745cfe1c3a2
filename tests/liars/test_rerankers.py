from __future__ import annotations

import pytest

from tests.contracts.reranker import CHECKS, fails
from tests.liars.rerankers import LIARS, HonestReranker, subject_of


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar: type[HonestReranker]) -> None:
    assert any(fails(check, subject_of(liar)) for check in CHECKS), f"{liar.__name__} passes every check"


def test_the_liars_are_many_and_their_honest_parent_passes() -> None:
    assert len(LIARS) >= 20
    assert not [check.__name__ for check in CHECKS if fails(check, subject_of(HonestReranker))]
