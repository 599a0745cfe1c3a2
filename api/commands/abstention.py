"""`rag eval abstention`: the relevance below which nothing is answered, chosen on `dev` and judged on `test`."""

from __future__ import annotations

from collections.abc import Sequence

from api.client import Client
from api.commands.call import Call, open_client
from api.commands.output import print_json, print_table, print_text
from indexes.errors import ChangeRequest
from rag.evaluation.abstention import Asked, report
from rag.evaluation.questions import SPLITS, Question, read_lines

HITS = 30
"""Hits of a question that are looked at, as many as an answer proposes by default."""


def run(call: Call, store: str, name: str, most: float) -> None:
    """Ask the questions of a set, choose a threshold on one split and say what it does on the other."""
    with open_client(call) as client:
        questions = [one for one in read_lines(client.question_set_lines(name).splitlines()) if one.judged]
        _require_both(name, questions)
        asked = {split: [_asked(client, store, one) for one in questions if one.split == split] for split in SPLITS}
    found = report(asked["dev"], asked["test"], most)
    if call.json:
        print_json(found)
        return
    print_text(
        f"threshold {found['threshold']:.2f}, chosen on {found['chosen_on']} questions (dev) so that at most "
        f"{most:.0%} of those that can be answered are not"
    )
    told = [f"{word} {_share(found[name])}{_interval(found[f'{name}_interval'])}" for name, word in SHARES.items()]
    print_text(
        f"test: {found['answerable']} that can be answered, {found['unanswerable']} that cannot: {', '.join(told)}, "
        f"ROC AUC {_share(found['roc_auc'])}"
    )
    columns = ("threshold", "recall", "false_abstention", "coverage", "accuracy")
    rows = ([_share(point[name]) for name in columns] for point in found["curve"][::4])
    print_table([name.upper().replace("_", " ") for name in columns], rows)


SHARES = {"recall": "recall", "false_abstention": "false abstention"}


def _require_both(name: str, questions: Sequence[Question]) -> None:
    """Raises ChangeRequest (`one_sided`) where a split lacks one kind of question."""
    kinds = {(one.split, one.unanswerable) for one in questions}
    if len(kinds) < 4:
        raise ChangeRequest(
            f"The question set {name!r} needs, in `dev` and in `test`, questions that can be answered and "
            "`unanswerable` ones.",
            code="one_sided",
            param="questions",
        )


def _asked(client: Client, store: str, question: Question) -> Asked:
    hits = client.search(store, {"query": question.text, "max_num_results": HITS})["data"]
    can = not question.unanswerable
    return Asked(max((hit["score"] for hit in hits), default=0.0), can, can)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float]) -> str:
    return f" [{ends[0]:.3f} to {ends[1]:.3f}]"
