"""The encoder of compiled models: rows that depend on their text alone, and turns for everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rag.embedders import exporting, onnx_encoder
from rag.embedders.model_files import resolve_model
from rag.embedders.onnx_encoder import AHEAD, AT_ONCE_TOKENS, OnnxEncoder
from rag.embedders.torch_encoder import TorchEncoder
from tests.small_bert import build_bert

LONG = list(range(1000, 1060))
SHORT = list(range(1000, 1010))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, TorchEncoder]:
    folder = tmp_path_factory.mktemp("tiny")
    original = TorchEncoder(resolve_model(str(build_bert(folder)[0])), device="cpu", attention="eager")
    exporting.export(original, folder / "fp32.onnx")
    return (folder / "fp32.onnx").read_bytes(), original


@pytest.fixture
def encoder(compiled: tuple[bytes, TorchEncoder]) -> Iterator[OnnxEncoder]:
    model, original = compiled
    made = OnnxEncoder("onnx-fp32", model, original.facts, original.tokenizer, threads=1)
    yield made
    made.close()


@pytest.fixture
def held(encoder: OnnxEncoder) -> Iterator[threading.Event]:
    """The encoder's only thread is busy until this is set."""
    release = threading.Event()
    encoder._pool.submit(release.wait, 30)
    yield release
    release.set()


def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(encoder: OnnxEncoder) -> None:
    alone = encoder.encode([LONG], 0)[0]
    for others in ([SHORT] * 2, [LONG[:50]] * 9, [SHORT, LONG, LONG[::-1], SHORT]):
        assert (encoder.encode([*others, LONG], 0)[-1] == alone).all()


def test_a_question_waits_for_nobody(encoder: OnnxEncoder, held: threading.Event) -> None:
    assert len(SHORT) * 2 <= AT_ONCE_TOKENS < len(LONG) * 3
    with ThreadPoolExecutor(1) as asking:
        assert asking.submit(encoder.encode, [SHORT, SHORT], 0).result(20).shape == (2, 32)
    assert not held.is_set()


def test_a_few_texts_need_not_wait_for_the_many_of_another_call(encoder: OnnxEncoder, held: threading.Event) -> None:
    with ThreadPoolExecutor(2) as calling:
        many = calling.submit(encoder.encode, [LONG] * 500, 0)
        while encoder._pool._work_queue.qsize() < AHEAD:
            pass
        few = calling.submit(encoder.encode, [LONG] * 3, 0)
        held.set()
        few.result(20)
        assert not many.done()
        assert np.isfinite(many.result(30)).all()


def test_the_machine_says_how_many_cores_there_are_unless_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(onnx_encoder.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert onnx_encoder.cores() == 3
    for said, meant in (("2", 2), ("0", 3), ("many", 3), ("", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert onnx_encoder.cores() == meant


def test_after_closing_questions_are_still_answered(encoder: OnnxEncoder) -> None:
    """A request that has the embedder in hand ends in its answer."""
    encoder.close()
    encoder.close()
    assert encoder.encode([SHORT], 0).shape == (1, 32)
