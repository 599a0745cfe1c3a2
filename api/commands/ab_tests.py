"""`rag ab`: prompts and models that are compared on live users."""

from __future__ import annotations

from collections.abc import Sequence

from api.client import Json
from api.commands.call import Call, open_client
from api.commands.output import print_json, print_table, print_text
from indexes.errors import ChangeRequest
from rag.evaluation.outcomes import MEASURES


def create_test(call: Call, name: str, arms: Sequence[str]) -> None:
    """Begin a test."""
    body = {"name": name, "arms": [_arm(given) for given in arms]}
    with open_client(call) as client:
        _told(call, client.create_ab_test(body))


def list_tests(call: Call) -> None:
    """Every test, arm by arm."""
    with open_client(call) as client:
        found = list(client.ab_tests())
    if call.json:
        print_json(found)
        return
    rows = [
        (one["id"], one["name"], one["status"], arm["name"], f"{arm['share']:.0%}", arm["prompt"], arm["model"])
        for one in found
        for arm in one["arms"]
    ]
    headings = ["ID", "NAME", "STATUS", "ARM", "SHARE", "PROMPT", "MODEL"]
    print_table(headings, [[cell or "" for cell in row] for row in rows])


def show_report(call: Call, test: str) -> None:
    """The shares of each arm, and the difference of each to the first with its interval."""
    with open_client(call) as client:
        found = client.ab_test_report(test)
    if call.json:
        print_json(found)
        return
    rows = [[arm["name"], *(_share(arm[measure]) for measure in MEASURES)] for arm in found["arms"]]
    print_table(["ARM", *(measure.upper() for measure in MEASURES)], rows)
    for one in found["differences"]:
        print_text(
            f"{one['measure']}: {one['arm']} {one['difference']:+.1%} against {one['compared_with']} "
            f"(95 %: {one['low']:+.1%} to {one['high']:+.1%}, p {one['p']:.4f})"
        )
    print_text("Each answer counts as one case, as if independent of the others of its user.")


def end_test(call: Call, test: str) -> None:
    """Let nobody take part any more."""
    with open_client(call) as client:
        _told(call, client.end_ab_test(test))


def delete_test(call: Call, test: str) -> None:
    """Forget a test."""
    with open_client(call) as client:
        gone = client.delete_ab_test(test)
    if call.json:
        print_json(gone)
    else:
        print_text(f"{gone['id']} is gone.")


def _arm(given: str) -> Json:
    """The arm in `NAME:SHARE,prompt=NAME,model=ALIAS`."""
    first, *chosen = given.split(",")
    name, _, share = first.rpartition(":")
    pairs = [one.partition("=") for one in chosen]
    try:
        if any(key not in ("prompt", "model") for key, _, _ in pairs):
            raise ValueError
        return {"name": name, "share": float(share), **{key: value for key, _, value in pairs}}
    except ValueError:
        raise ChangeRequest(
            f"{given!r} is no arm: write NAME:SHARE, then prompt=NAME and model=ALIAS with commas between them.",
            code="invalid_arms",
            param="arms",
        ) from None


def _told(call: Call, test: Json) -> None:
    if call.json:
        print_json(test)
    else:
        print_text(f"{test['id']} ({test['name']}): {test['status']}.")


def _share(share: Json) -> str:
    value = "-" if share["value"] is None else f"{share['value']:.1%}"
    return f"{value} ({share['number']:,} of {share['of']:,})"
