"""How good a ranking is against judgements, by `ir-measures` (trec_eval's definitions).

measure({"q": ["b", "a"]}, {"q": {"a": 1}}, ["RR@10"]).means  ->  {"RR@10": 0.5}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexes.errors import Unsupported


@dataclass(frozen=True)
class Measured:
    """Means over the judged queries, and the values behind them by measure and query. All in [0, 1] unless a measure's
    own definition says otherwise."""

    means: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    queries: int
    """The number of queries that the means are over."""


def measure(
    run: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], measures: Sequence[str]
) -> Measured:
    """How good rankings are.

    `run` maps a query to its documents, best first: positions and not scores, because trec_eval compares scores as
    32-bit numbers and breaks ties in an order of its own. `qrels` maps a query to the grades of its judged documents
    (0 is not relevant). Every query with a relevant document counts; one that the run lacks counts as 0.
    `measures` are names of ir-measures, such as `nDCG@10`. Raises Unsupported for a name that it does not know.
    """
    import ir_measures

    asked = {name: _parse(name) for name in measures}
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    values = {name: dict.fromkeys(judged, 0.0) for name in asked}
    names = {parsed: name for name, parsed in asked.items()}
    relevance = [ir_measures.Qrel(q, d, grade) for q, grades in judged.items() for d, grade in grades.items()]
    scored = [
        ir_measures.ScoredDoc(query, document, float(-position))
        for query in judged
        for position, document in enumerate(run.get(query, ()))
    ]
    if relevance and scored:
        for value in ir_measures.iter_calc(list(names), relevance, scored):
            values[names[value.measure]][value.query_id] = float(value.value)
    means = {name: sum(found.values()) / len(judged) if judged else 0.0 for name, found in values.items()}
    return Measured(means, values, len(judged))


def _parse(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (ValueError, NameError, SyntaxError) as error:
        raise Unsupported(
            f"{name!r} is not a measure of ir-measures. It knows nDCG@10, R@100, RR@10, AP and P@5, for example.",
            code="unknown_measure",
            param="measures",
        ) from error
