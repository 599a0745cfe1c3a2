"""Relevance is absolute: its scale comes from the space, its range is [0, 1], and the threshold means something."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.errors import ChangeRequest
from indexes.words import analyse, content_words
from rag.embedders import EmbedderRegistry
from rag.relevance import DEFAULT_THRESHOLD, Calibration, calibrate, coverage, relevance
from rag.settings import Settings

SCALE = Calibration(low=0.1, high=0.6)
cosines = st.none() | st.floats(-1, 1)
shares = st.none() | st.floats(0, 1)


@pytest.fixture(scope="module")
def registry():
    return EmbedderRegistry({})


@pytest.mark.parametrize("name", ["toy-256", "toy-384-b", "default"])
def test_the_scale_is_what_the_pairs_say(registry, name):
    embedder = registry.open(name)
    calibration = calibrate(embedder)
    rows = [json.loads(line) for line in files("rag").joinpath("calibration.jsonl").read_text("utf-8").splitlines()]
    questions = embedder.embed_queries([row["question"] for row in rows])
    passages = embedder.embed_documents([row["passage"] for row in rows])
    matching, other = [], []
    for i, question in enumerate(questions):
        for j, passage in enumerate(passages):
            (matching if i == j else other).append(float(question @ passage))
    assert calibration.low == pytest.approx(sum(other) / len(other), abs=1e-5)
    assert calibration.high == pytest.approx(sorted(matching)[19] / 2 + sorted(matching)[20] / 2, abs=1e-5)
    assert calibration.high - calibration.low > 0.15
    assert calibrate(embedder) == calibration


def test_the_scale_survives_json(registry):
    calibration = calibrate(registry.open("toy-256"))
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize(
    "data", [{}, {"low": 0.1}, {"low": "x", "high": 1}, {"low": 0.5, "high": 0.5}, {"low": None, "high": 1}]
)
def test_what_is_no_scale_is_refused(data):
    with pytest.raises(ChangeRequest):
        Calibration.from_json(data)


class Blind:
    """An embedder to which everything is the same, with a window of a few tokens."""

    def __init__(self, registry):
        self.tokenizer = registry.open("toy-256").tokenizer
        self.limit = 5
        self.space = replace(registry.open("toy-256").space, dimension=2)

    def embed_documents(self, texts):
        assert max(self.tokenizer.count(text) for text in texts) <= self.limit
        assert all(texts)
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    embed_queries = embed_documents


def test_a_space_that_tells_nothing_apart_still_has_a_scale(registry):
    calibration = calibrate(Blind(registry))
    assert calibration.low < calibration.high
    assert relevance(1.0, None, calibration) == pytest.approx(0, abs=1e-9)


def test_coverage_weighs_words_by_rarity():
    idf = np.array([0.0, 2.0, 3.0])
    texts = [[True, False, False], [False, False, True], [False, True, True], [False, False, False]]
    assert coverage(idf, np.array(texts).T) == pytest.approx([0, 0.6, 1, 0])
    assert coverage(np.zeros(0), np.zeros((0, 2), dtype=bool)).tolist() == [0, 0]
    assert coverage(np.zeros(1), np.ones((1, 1), dtype=bool)).tolist() == [0]


def test_equal_texts_cover_equally_wherever_they_stand():
    chance = np.random.default_rng(3)
    idf, one = chance.random(17) * 9, chance.random((17, 1)) < 0.5
    assert len(set(coverage(idf, np.repeat(one, 41, axis=1)).tolist())) == 1


def test_the_measured_threshold_is_the_default_setting():
    assert Settings().retrieval.min_relevance == DEFAULT_THRESHOLD


@given(cosines, shares)
def test_it_stays_in_its_range(cosine, covered):
    assert 0 <= relevance(cosine, covered, SCALE) <= 1


@given(st.floats(-1, 1), st.floats(-1, 1), shares)
def test_a_larger_cosine_never_makes_it_smaller(one, other, covered):
    low, high = sorted((one, other))
    assert relevance(low, covered, SCALE) <= relevance(high, covered, SCALE)


@given(cosines, st.floats(0, 1), st.floats(0, 1))
def test_more_of_the_words_never_make_it_smaller(cosine, one, other):
    low, high = sorted((one, other))
    assert relevance(cosine, low, SCALE) <= relevance(cosine, high, SCALE)


def test_its_ends():
    assert relevance(None, None, SCALE) == 0
    assert relevance(0.1, None, SCALE) == relevance(-1, 0, SCALE) == relevance(None, 0, SCALE) == 0
    assert relevance(0.6, None, SCALE) == relevance(1, 1, SCALE) == relevance(None, 1, SCALE) == 1


@pytest.mark.parametrize("name", ["default", "toy-384"])
def test_the_threshold_parts_an_answer_from_small_talk(registry, name):
    embedder = registry.open(name)
    calibration = calibrate(embedder)
    passage = "To pair the remote control, point it at the sensor and hold the return and play buttons for 3 seconds."
    asked = "how do I pair the remote control?", "who won the chess championship in 1972?"
    vectors = embedder.embed_queries(asked) @ embedder.embed_documents([passage])[0]
    found = set(analyse(passage))
    scores = []
    for question, cosine in zip(asked, vectors, strict=True):
        there = np.array([[word in found] for word in content_words(question)])
        held = float(coverage(np.ones(len(there)), there)[0])
        scores.append(relevance(float(cosine), held, calibration))
    assert scores[0] >= DEFAULT_THRESHOLD > scores[1]
