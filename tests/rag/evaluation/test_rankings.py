"""Values worked out by hand from the definitions; nothing is compared with the library's own output."""

import math
import random

import pytest

from indexes.errors import Unsupported
from rag.evaluation.rankings import measure


def test_one_query_by_hand():
    measured = measure(
        {"q": ["x", "a", "y", "b"]}, {"q": {"a": 1, "b": 1, "c": 1}}, ["nDCG@10", "R@3", "R@100", "RR@10"]
    )
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert measured.means["nDCG@10"] == pytest.approx(gained / ideal)
    assert measured.means["R@3"] == pytest.approx(1 / 3)
    assert measured.means["R@100"] == pytest.approx(2 / 3)
    assert measured.means["RR@10"] == pytest.approx(1 / 2)


def test_grades_weigh_and_positions_beyond_the_cut_do_not_count():
    run = {"q": [f"x{i}" for i in range(10)] + ["a"]}
    assert measure(run, {"q": {"a": 1}}, ["nDCG@10", "RR@10"]).means == {"nDCG@10": 0.0, "RR@10": 0.0}
    graded = measure({"q": ["low", "high"]}, {"q": {"high": 2, "low": 1}}, ["nDCG@10"])
    assert graded.means["nDCG@10"] == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))


def test_the_mean_is_over_every_query_with_a_relevant_document():
    qrels = {"found": {"a": 1}, "missed": {"b": 1}, "not_run": {"c": 1}, "nothing_relevant": {"d": 0}}
    measured = measure({"found": ["a"], "missed": ["x"], "nothing_relevant": ["d"]}, qrels, ["RR@10"])
    assert measured.queries == 3
    assert measured.per_query["RR@10"] == {"found": 1.0, "missed": 0.0, "not_run": 0.0}
    assert measured.means["RR@10"] == pytest.approx(1 / 3)


def test_the_order_of_the_run_decides_even_where_scores_of_32_bits_would_tie():
    """trec_eval puts ties in descending order of the document's name: z before a."""
    documents = [f"z{i:05d}" for i in range(40_000)]
    measured = measure({"q": [*documents, "a"]}, {"q": {"z00001": 1}}, ["RR@10"])
    assert measured.means["RR@10"] == pytest.approx(1 / 2)


def test_an_empty_run_is_zero_and_no_judgement_is_no_query():
    assert measure({}, {"q": {"a": 1}}, ["nDCG@10"]).means == {"nDCG@10": 0.0}
    assert measure({"q": ["a"]}, {}, ["nDCG@10"]).queries == 0


@pytest.mark.parametrize("name", ["nonsense@10", "nDCG@", "__import__('os')"])
def test_an_unknown_measure_is_refused(name):
    with pytest.raises(Unsupported) as caught:
        measure({"q": ["a"]}, {"q": {"a": 1}}, [name])
    assert caught.value.code == "unknown_measure"


def test_a_hundred_random_runs_have_the_values_of_trec_eval():
    """trec_eval itself, by its own binding; reciprocal ranks have no cut there, so the run is cut for them."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    theirs = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "AP": "map", "P@5": "P_5", "RR@10": "recip_rank"}
    rng = random.Random(4)
    for _ in range(100):
        documents = [f"d{number}" for number in range(rng.randint(5, 300))]
        run = {f"q{q}": rng.sample(documents, rng.randint(1, len(documents))) for q in range(3)}
        judged = {q: rng.sample(documents, rng.randint(1, len(documents))) for q in run}
        qrels = {q: {d: max(rng.randint(-2, 3), 0) for d in names} for q, names in judged.items()}
        for grades in qrels.values():
            grades[rng.choice(documents)] = 1
        measured = measure(run, qrels, list(theirs))
        whole, cut = (
            pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "map", "P.5", "recip_rank"}).evaluate(
                {q: {d: float(-place) for place, d in enumerate(ranked[:most])} for q, ranked in run.items()}
            )
            for most in (None, 10)
        )
        for ours, name in theirs.items():
            expected = cut if ours == "RR@10" else whole
            for q in run:
                assert measured.per_query[ours][q] == pytest.approx(expected[q][name], abs=1e-9)
