"""`rag eval questions`: sets in, out and listed, and candidates out of feedback."""

from __future__ import annotations

import json
from pathlib import Path

from api.commands.call import Call, open_client
from api.commands.output import note, print_json, print_table, print_text
from indexes.errors import ChangeRequest
from ingest.beir import read_questions
from rag.evaluation.questions import as_line


def import_set(call: Call, path: Path, name: str, dev_share: float) -> None:
    """Keep a file of JSON lines, or a folder in BEIR's form, as a set."""
    with open_client(call) as client:
        made = client.create_question_set(name, _lines(path, dev_share), dev_share)
    if call.json:
        print_json(made)
    else:
        print_text(f"{made['name']}@{made['version']} ({made['id']}): {made['size']:,} questions.")


def list_sets(call: Call) -> None:
    """Every version of every set."""
    with open_client(call) as client:
        sets = list(client.question_sets())
    if call.json:
        print_json(sets)
    else:
        rows = ([one["name"], one["version"], one["size"], one["dev_share"], one["id"]] for one in sets)
        print_table(["NAME", "VERSION", "QUESTIONS", "DEV SHARE", "ID"], rows)


def export_set(call: Call, name: str) -> None:
    """The questions of a version as JSON lines."""
    with open_client(call) as client:
        print(client.question_set_lines(name), end="")


def from_feedback(call: Call, store: str) -> None:
    """Candidates as JSON lines on stdout, and what could not be used on stderr."""
    with open_client(call) as client:
        found = client.feedback_questions(store)
    for line in found["data"]:
        print(json.dumps(line, ensure_ascii=False))
    unjudged = sum(not {"labels", "answers"} & line.keys() for line in found["data"])
    note(f"{len(found['data']):,} candidates, {unjudged:,} of them still to be judged.")
    if found["without_text"]:
        note(f"{found['without_text']:,} judged answers left no words behind: set traces.capture for those to come.")
    if found["without_thumb"]:
        note(f"{found['without_thumb']:,} were judged by something other than a thumb or a corrected answer.")


def _lines(path: Path, dev_share: float) -> bytes:
    if path.is_dir():
        return "\n".join(map(as_line, read_questions(path, dev_share))).encode()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ChangeRequest(f"The file {path} cannot be read: {error.strerror}.", code="file_unreadable") from error
