"""`rag experiments`: prompts and models that are compared on live traffic."""

from __future__ import annotations

from api.client import Json
from api.commands.call import Call, open_client
from api.commands.output import print_json, print_table, print_text

MEASURES = ("failed", "judged", "positive", "abstained", "ungrounded")


def list_experiments(call: Call) -> None:
    """The experiments of the settings, arm by arm."""
    with open_client(call) as client:
        found = client.experiments()
    if call.json:
        print_json(found)
        return
    rows = [
        (one["name"], arm["name"], f"{arm['share']:.0%}", arm["prompt"] or "", arm["model"] or "")
        for one in found
        for arm in one["arms"]
    ]
    print_table(["EXPERIMENT", "ARM", "SHARE", "PROMPT", "MODEL"], rows)


def show_experiment(call: Call, name: str) -> None:
    """The shares of each arm, and the difference of each to the first with its interval."""
    with open_client(call) as client:
        found = client.experiment(name)
    if call.json:
        print_json(found)
        return
    headings = ["ARM", *(measure.upper() for measure in MEASURES)]
    print_table(headings, [(arm["arm"], *(_share(arm[measure]) for measure in MEASURES)) for arm in found["arms"]])
    for one in found["differences"]:
        print_text(
            f"{one['measure']}: {one['arm']} {one['difference']:+.1%} against {one['compared_with']} "
            f"(95 %: {one['low']:+.1%} to {one['high']:+.1%})"
        )
    print_text("Each answer counts as one case, independent of the others of its user.")


def _share(share: Json) -> str:
    value = "-" if share["value"] is None else f"{share['value']:.1%}"
    return f"{value} ({share['number']:,} of {share['of']:,})"
