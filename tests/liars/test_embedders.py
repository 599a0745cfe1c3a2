from __future__ import annotations

import pytest

from rag.embedders import EmbedderSpec
from tests.contracts.embedder import CHECKS, Subject
from tests.liars.embedders import LIARS, HonestEmbedder
from tests.rag.embedders.test_embedders import PASSAGE, QUERY, bag_of_words


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_the_contract_catches(liar: type[HonestEmbedder]) -> None:
    assert any(_fails(check, liar) for check in CHECKS), f"{liar.__name__} passes every check"


def test_the_liars_are_many_and_their_honest_parent_passes() -> None:
    assert len(LIARS) >= 25
    assert not [check.__name__ for check in CHECKS if _fails(check, HonestEmbedder)]


def _fails(check, kind) -> bool:
    spec = {"name": "x", "provider": "toy", "model": "one", "document_prefix": PASSAGE, "query_prefix": QUERY}
    others = ({"model": "two"}, {"document_prefix": "passage: "}, {"query_prefix": ""}, {"token_limit": 50})

    def truth(text: str):
        return bag_of_words(text, "one")  # the name seeds the hash

    try:
        check(Subject(lambda **changes: kind(EmbedderSpec(**{**spec, **changes})), truth, (PASSAGE, QUERY), others))
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
        return True
    return False
