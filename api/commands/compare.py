"""`rag eval compare`: two ways of answering, on one's own questions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from api.client import Client, Json
from api.commands.call import FAILED, Call, open_client
from api.commands.output import note, print_json, print_table, print_text
from api.commands.progress import stages
from indexes.errors import ChangeRequest

LOOK_EVERY = 0.3
SHOWN = 5
"""Questions that got better, and that got worse, which are shown."""


def run(
    call: Call,
    store: str,
    questions: str,
    arms: tuple[str, str],
    *,
    split: str | None,
    measures: Sequence[str] | None,
    answers: bool,
) -> None:
    """Let the server compare, wait, and show what comes of it."""
    named = [{"name": name, **settings_of_arm(text)} for name, text in zip("ab", arms, strict=True)]
    body: Json = {"vector_store_id": store, "question_set": questions, "arms": named, "answers": answers}
    body |= {"split": split} if split else {}
    body |= {"measures": list(measures)} if measures else {}
    with open_client(call, jobs=True) as client:
        found = _await_end(call, client, client.create_evaluation(body))
    if call.json:
        print_json(found)
    elif found["result"]:
        print_result(found["result"])
    if found["error"]:
        note(f"rag: {found['error']['message']}")
        raise SystemExit(FAILED)


def settings_of_arm(text: str) -> Json:
    """`mode=dense,candidates=50` as the fields of an arm. Raises ChangeRequest (`invalid_value`)."""
    found: Json = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ChangeRequest(
                f"{pair!r} sets nothing: an arm is written as mode=dense,candidates=50.", code="invalid_value"
            )
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value.strip()
    return found


def _await_end(call: Call, client: Client, evaluation: Json) -> Json:
    with stages(as_json=call.json) as tell:
        while evaluation["status"] in ("queued", "running"):
            tell("questions", evaluation["questions_done"], evaluation["questions"])
            time.sleep(LOOK_EVERY)
            evaluation = client.evaluation(evaluation["id"])
    return evaluation


def print_result(result: Json) -> None:
    """Every comparison of a result for people."""
    for arm in result["arms"]:
        _print_arm(arm)
    for place, comparison in enumerate(result["comparisons"]):
        print_text()
        _print_comparison(comparison)
        if result["verdicts"] and result["verdicts"][place]["reason"] != "off":
            verdict = result["verdicts"][place]
            print_text(f"Gate: {'passes' if verdict['passed'] else 'refuses'} {comparison['b']}. {verdict['message']}")


def _print_arm(arm: Json) -> None:
    settings = ", ".join(
        f"{name} {value}" for name, value in arm["arm"].items() if value is not None and name != "name"
    )
    print_text(f"{arm['arm']['name']}: {settings or 'as set up'} (n = {arm['questions']:,} questions)")
    spent = "; ".join(f"{name} p50 {q['p50']:.1f} p95 {q['p95']:.1f} ms" for name, q in arm["milliseconds"].items())
    tokens = ", ".join(f"{name} {mean:g}" for name, mean in arm["tokens"].items())
    print_text(f"   {spent}\n   tokens a question: {tokens}")
    if arm["labels_left_out"]:
        few = ", ".join(arm["first_left_out"])
        print_text(f"   {arm['labels_left_out']:,} labels left out, which name nothing in the store: {few}")


def _print_comparison(comparison: Json) -> None:
    statistics = ["CHANGE", "95 % INTERVAL", "p", "DETECTABLE", "n", "BETTER", "WORSE"]
    headings = ["MEASURE", comparison["a"], comparison["b"], *statistics]
    print_table(headings, [_row(name, one) for name, one in comparison["measures"].items()])
    for what, changed in (("better", comparison["improved"]), ("worse", comparison["worsened"])):
        if changed:
            number = comparison["measures"][comparison["by"]][what]
            print_text(f"{number:,} questions got {what} by {comparison['by']}:")
        for one in changed[:SHOWN]:
            print_text(f"   {one['id']}: {one['a']:.3f} -> {one['b']:.3f}  {one['question'][:100]}")


def _row(name: str, one: Mapping[str, Any]) -> list[object]:
    interval = one["interval"]
    return [
        name + (" (lower is better)" if one["lower_is_better"] else ""),
        f"{one['a']:.4f}",
        f"{one['b']:.4f}",
        f"{one['difference']:+.4f}",
        f"{interval['low']:+.4f} to {interval['high']:+.4f}" if interval else "",
        "" if one["p"] is None else f"{one['p']:.4f}",
        "" if one["detectable"] is None else f"{one['detectable']:.4f}",
        one["n"],
        one["better"],
        one["worse"],
    ]
