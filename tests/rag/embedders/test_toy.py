"""Toys: deterministic in every process, near when words are shared."""

import subprocess
import sys

import pytest

from rag.embedders import EmbedderRegistry
from rag.embedders.toy import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_shared_words_bring_texts_together(name):
    texts = ["how do I reset the router", "Hold the button to reset your routers", "Bake the bread for an hour"]
    question, near, far = EmbedderRegistry({}).open(name).embed_documents(texts)
    assert question @ near > question @ far + 0.1


def test_another_process_makes_the_same_vector():
    code = (
        "from rag.embedders import EmbedderRegistry as R;"
        "print(R({}).open('toy-256').embed_documents(['reset the router'])[0].tobytes().hex())"
    )
    outputs = {subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)}
    mine = EmbedderRegistry({}).open("toy-256").embed_documents(["reset the router"])[0].tobytes().hex()
    assert outputs == {mine}
