"""`rag eval drift`: what is watched from day to day, and the questions that are asked again."""

from __future__ import annotations

from api.client import Json
from api.commands.call import Call, open_client
from api.commands.output import print_json, print_table, print_text


def run(call: Call, store: str, canaries: str | None, *, today: bool) -> None:
    """Set the canaries where some are named, and show what the days came to."""
    with open_client(call) as client:
        if canaries is not None:
            client.set_canaries(store, canaries or None)
        found = client.drift(store, today=today)
    if call.json:
        print_json(found)
    else:
        _print(found)


def _print(found: Json) -> None:
    watched = found["canaries"]
    print_text(f"Canaries: {watched['question_set']}, {watched['questions']} questions." if watched else "No canaries.")
    if not found["days"]:
        print_text("No day has been looked at yet. --today looks at this one so far.")
    for day in found["days"]:
        print_text(f"{day['day']}: {day['counts']['questions']} questions; {', '.join(day['alarms']) or 'no alarm'}")
        rows = [[s["name"], _share(s["value"]), _share(s["before"]), _share(s["p"])] for s in day["signals"]]
        if again := day["canaries"]:
            rows.append(["canaries", _share(again["overlap"]), "1.000", "-"])
        print_table(["SIGNAL", "DAY", "BEFORE", "P"], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
