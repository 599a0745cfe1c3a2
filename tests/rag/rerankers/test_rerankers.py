"""Every reranker against the contract, truth worked out by other means; and what cannot be one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from indexes.errors import ChangeRequest, NotThere, RagError, Unsupported
from indexes.words import analyse
from rag.rerankers import RERANKERS, RerankerRegistry, RerankerSpec, open_reranker
from rag.tokenizers import plain
from tests.contracts.reranker import CHECKS, Subject
from tests.rag.embedders.test_embedders import one_thread
from tests.small_bert import build_bert, build_cross_encoder

LIMIT = 64


class ByHand:
    """One pair at a time, cut by its tokens and put together here, by `transformers` alone."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.score = cache(self._score)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(plain(text), add_special_tokens=False, verbose=False).input_ids
        return ids

    def _score(self, question: str, passage: str) -> float:
        import torch

        asked = self._ids(question)[: LIMIT // 2]
        read = self._ids(passage)[: LIMIT - 3 - len(asked)]
        start, end = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        ids = torch.tensor([[start, *asked, end, *read, end]])
        types = torch.tensor([[0] * (len(asked) + 2) + [1] * (len(read) + 1)])
        with torch.inference_mode():
            return float(self._model(input_ids=ids, token_type_ids=types).logits[0, 0])


def overlap(question: str, passage: str) -> float:
    words = set(analyse(passage))
    return len([word for word in words if word in analyse(question)]) / len(words) if words else 0.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cross_encoder(tmp_path_factory.mktemp("cross") / "tiny")


@pytest.fixture(scope="module")
def subjects(saved: Path) -> Iterator[Callable[[str], Subject]]:
    def make(name: str) -> Subject:
        table: dict[str, Any] = {"provider": name, "model": "overlap" if name == "toy" else str(saved)}
        reranker = RerankerRegistry({"x": table}).open("x")
        truth = overlap if name == "toy" else ByHand(saved).score
        return Subject(reranker, truth, lambda question, passage: (question, passage))

    with one_thread():
        yield cache(make)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", RERANKERS)
def test_contract(name: str, check: Callable[[Subject], None], subjects: Callable[[str], Subject]) -> None:
    check(subjects(name))


def test_a_model_reads_less_where_the_settings_say_so(saved: Path) -> None:
    whole = RerankerSpec("x", "cross-encoder", str(saved))
    passages = ["red battery " * 7, "red battery " * 9]
    one, other = open_reranker(replace(whole, token_limit=16, batch_size=1)).score("lamp", passages)
    assert one == pytest.approx(other, abs=1e-4)
    one, other = open_reranker(whole).score("lamp", passages)
    assert one != pytest.approx(other, abs=1e-3)


def broken(folder: Path, saved: Path) -> dict[str, Path]:
    """Folders that are no cross-encoder of ours, by what the refusal says."""
    shutil.copytree(saved, folder / "unsafe").joinpath("model.safetensors").rename(folder / "unsafe" / "model.bin")
    shutil.copytree(saved, folder / "damaged").joinpath("model.safetensors").write_bytes(b"nothing of use")
    return {
        "no \\*.safetensors": folder / "unsafe",
        "does not load": folder / "damaged",
        "not a cross-encoder": build_bert(folder / "plain")[0],
        "3 scores": build_cross_encoder(folder / "three", labels=3),
        "no model folder": folder / "none",
    }


def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, saved: Path) -> None:
    for words, path in broken(tmp_path, saved).items():
        with pytest.raises(RagError, match=words):
            open_reranker(RerankerSpec("x", "cross-encoder", str(path)))
    with pytest.raises(Unsupported, match="not a cross-encoder"):
        open_reranker(RerankerSpec("x", "cross-encoder", "all-MiniLM-L6-v2"))
    with pytest.raises(NotThere, match="not on this machine"):
        open_reranker(RerankerSpec("x", "cross-encoder", "cross-encoder/no-such-model"))


def test_settings_are_read_strictly_and_names_answer_with_the_known() -> None:
    table = {"provider": "toy", "model": "overlap"}
    registry = RerankerRegistry({"words": table})
    assert registry.open("words") is registry.open("words")
    with pytest.raises(Unsupported, match="none, words") as caught:
        registry.open("others")
    assert caught.value.param == "reranker"
    for wrong in ({"token_limit": 3}, {"device": 1}, {"modle": "x"}, {"batch_size": 2}):
        with pytest.raises(ChangeRequest, match=next(iter(wrong))):
            RerankerRegistry({"words": {**table, **wrong}})
    with pytest.raises(Unsupported, match="cross-encoder, toy"):
        open_reranker(RerankerSpec("x", "no-such", "m"))
