"""`rag eval groundedness`: answers of a file against their passages, and the check against people's labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from api.client import Json
from api.commands.call import Call, require_here, settings_of
from api.commands.output import print_json, print_text
from indexes.errors import ChangeRequest
from rag.evaluation.agreement import kappa, macro_f1
from rag.evaluation.citations import judge_citations, together
from rag.evaluation.claims import claims
from rag.evaluation.entailment import Entailment, open_entailment
from rag.evaluation.groundedness import BLIND_SPOTS

LABELS = {"grounded": True, "not_grounded": False}


def run(call: Call, file: Path, method: str | None) -> None:
    """Check the answers of a file against their passages, and against people's labels where there are any."""
    require_here(call, "Checking answers")
    settings = settings_of(call)
    used = method or settings.groundedness.method
    rows = [(_text(row, where), _passages(row, where), _label(row, where)) for where, row in _lines(file)]
    with closing(open_entailment(settings, method)) as entails:
        verdicts = [_stands(answer, passages, entails) for answer, passages, _ in rows]
        quality = together([judge_citations(answer, passages, entails) for answer, passages, _ in rows])
    judged = [(label, verdict) for (*_, label), verdict in zip(rows, verdicts, strict=True) if label is not None]
    labels, said = [label for label, _ in judged], [verdict for _, verdict in judged]
    found: Json = {
        "method": used,
        "answers": len(rows),
        "not_grounded": verdicts.count(False),
        "verdicts": verdicts,
        "citations": {name: getattr(quality, name) for name in ("validity", "recall", "precision")},
        "labelled": len(judged),
        "macro_f1": macro_f1(labels, said) if judged else None,
        "kappa": kappa(labels, said) if judged else None,
        "blind_spots": list(BLIND_SPOTS) if used == "words" else [],
    }
    if call.json:
        print_json(found)
    else:
        _print(found)


def _print(found: Json) -> None:
    print_text(
        f"{found['answers']} answers by {found['method']}: {found['not_grounded']} with a sentence that does not stand "
        "on its text"
    )
    print_text("Citations: " + ", ".join(f"{name} {_share(value)}" for name, value in found["citations"].items()))
    if found["labelled"]:
        agreement = f"macro-F1 {_share(found['macro_f1'])}, kappa {_share(found['kappa'])}"
        print_text(f"Against {found['labelled']} labels: {agreement}")
    for spot in found["blind_spots"]:
        print_text(f"  cannot see: {spot}")


def _stands(answer: str, passages: Mapping[int, str], entails: Entailment) -> bool:
    """Whether each claim of an answer stands on what it cites, or on all where it cites nothing."""
    pairs = []
    for claim in claims(answer):
        looked_at = [number for number in claim.cited or passages if number in passages]
        pairs.append(("\n".join(passages[number] for number in looked_at), claim.text))
    return all(entails(pairs))


def _lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a file of JSON lines, each with its place. Raises ChangeRequest (`bad_file`)."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ChangeRequest(f"The file {file} cannot be read: {error}.", code="bad_file") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ChangeRequest(f"{file}, line {number} is not JSON: {error}.", code="bad_file") from error
            if not isinstance(row, dict):
                raise ChangeRequest(f"{file}, line {number} is not a JSON object.", code="bad_file")
            yield f"{file}, line {number}", row


def _text(row: Mapping[str, Any], where: str) -> str:
    answer = row.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        raise ChangeRequest(f"{where} has no text in 'answer'.", code="bad_file")
    return answer


def _passages(row: Mapping[str, Any], where: str) -> dict[int, str]:
    given = row.get("context")
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise ChangeRequest(f"{where} has no list of texts in 'context'; the first is [1].", code="bad_file")
    return dict(enumerate(given, 1))


def _label(row: Mapping[str, Any], where: str) -> bool | None:
    label = row.get("label")
    if label is not None and (not isinstance(label, str) or label not in LABELS):
        raise ChangeRequest(f"{where}: a label is 'grounded' or 'not_grounded', not {label!r}.", code="bad_file")
    return None if label is None else LABELS[label]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
