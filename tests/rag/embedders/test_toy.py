"""Toys: deterministic, unit length, near when words are shared."""

import subprocess
import sys

import numpy as np
import pytest

from indexes.errors import ChangeRequest
from rag.embedders import EmbedderRegistry

UGLY = ["", " \n\t", ".", "🙂🙂", "全文検索", "\ud800", "a" * 400, "naïve café", "x\0y", "[SEP] or AND NOT"]


@pytest.fixture(params=["toy-256", "toy-384", "toy-384-b"])
def toy(request):
    return EmbedderRegistry({}).open(request.param)


def test_shape_and_length_on_ugly_text(toy):
    rows = toy.embed_documents(UGLY)
    assert rows.shape == (len(UGLY), toy.space.dimension)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert toy.embed_documents([]).shape == (0, toy.space.dimension)


def test_rows_do_not_depend_on_their_neighbours(toy):
    together = toy.embed_queries(UGLY)
    for row, text in zip(together, UGLY, strict=True):
        assert np.array_equal(row, toy.embed_documents([text])[0])


def test_shared_words_bring_texts_together(toy):
    question, near, far = toy.embed_documents(
        ["how do I reset the router", "Hold the button to reset your routers", "Bake the bread for an hour"]
    )
    assert question @ near > question @ far + 0.1


def test_another_process_makes_the_same_vector():
    code = (
        "from rag.embedders import EmbedderRegistry as R;"
        "print(R({}).open('toy-256').embed_documents(['reset the router'])[0].tobytes().hex())"
    )
    outputs = {subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)}
    mine = EmbedderRegistry({}).open("toy-256").embed_documents(["reset the router"])[0].tobytes().hex()
    assert outputs == {mine}


def test_the_limit_is_exact(toy):
    fits = " word" * toy.limit
    assert toy.tokenizer.count(fits) == toy.limit
    assert toy.embed_documents([fits]).shape[0] == 1
    with pytest.raises(ChangeRequest) as caught:
        toy.embed_documents(["short", fits + " word"])
    assert caught.value.code == "text_too_long"
    assert str(toy.limit + 1) in caught.value.message
