"""Prompt files: what they must declare, what is refused, and which bytes stay the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from indexes.errors import ChangeRequest, Unsupported
from rag.prompt import PACKAGED, load_prompt, messages, read_prompt, render

GOOD = """id: mine
version: 2
description: a test
variables: marker, passages, question, company
--- system
We are {{company}}.
--- user
{{marker}}
{{passages}}
{{question}}
--- abstain
Nothing.
"""


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_prompt_is_read_with_its_hash() -> None:
    prompt = load_prompt("answer")
    assert (prompt.id, prompt.version) == ("answer", "1")
    assert prompt.hash == hashlib.sha256((PACKAGED / "answer.txt").read_bytes()).hexdigest()[:32]
    assert prompt.sections["abstain"] == "I found nothing in the documents that answers this question."
    assert "{{" not in prompt.sections["system"]
    assert prompt.sections["user"].endswith("{{question}}"), "the question stands last"


def test_the_users_folder_goes_first(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("id: mine", "id: ours"), "answer")
    assert load_prompt("answer", [tmp_path]).id == "ours"
    assert load_prompt("answer", [tmp_path / "absent"]).id == "answer"


@pytest.mark.parametrize("name", ["nope", "../answer", "/etc/passwd", "", "a/b", "answer.txt"])
def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(Unsupported, match="answer, judge, mine") as caught:
        load_prompt(name, [tmp_path])
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 2\n", "", "version:"),
        ("--- abstain\nNothing.\n", "", "--- abstain"),
        ("{{question}}\n", "{{question}} {{user_id}}\n", "user_id"),
        ("{{question}}\n", "", "question"),
        ("{{passages}}", "{{passages}}{{passages}}", "passages"),
        ("We are", "{{question}} We are", "question"),
    ],
)
def test_a_file_that_breaks_a_rule_is_named_with_its_fault(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ChangeRequest) as caught:
        read_prompt(path)
    assert path.name in caught.value.message
    assert str(tmp_path) not in caught.value.message  # it reaches whoever names the prompt
    assert words in caught.value.message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChangeRequest, match=r"mine\.txt"):
        load_prompt("mine", [tmp_path])


def test_missing_and_undeclared_values_are_named(tmp_path: Path) -> None:
    prompt = read_prompt(write(tmp_path, GOOD))
    with pytest.raises(ChangeRequest, match=r"company.*") as caught:
        messages(prompt, "q", "p", "m")
    assert "mine.txt" in caught.value.message
    with pytest.raises(ChangeRequest, match="colour"):
        render(prompt, "system", {"company": "ACME", "colour": "red"})


def test_values_are_not_expanded_again(tmp_path: Path) -> None:
    prompt = read_prompt(write(tmp_path, GOOD))
    rendered = messages(prompt, "{{company}} {{marker}}", "{{question}}", "m", values={"company": "{{passages}} \\1"})
    assert rendered[0]["content"] == "We are {{passages}} \\1."
    assert rendered[1]["content"] == "m\n{{question}}\n{{company}} {{marker}}"


def test_messages_stand_as_system_history_user() -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = messages(load_prompt("answer"), "Why?", "[passages]", "mark", history)
    assert [message["role"] for message in rendered] == ["system", "user", "assistant", "user"]
    assert rendered[1:3] == tuple(history)
    assert rendered[3]["content"].endswith("Question: Why?")


def test_the_stable_prefix_reaches_to_the_first_byte_of_the_request() -> None:
    prompt = load_prompt("answer")
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    first = messages(prompt, "Why?", "one", "aaaa2222", history)
    second = messages(prompt, "How?", "two", "bbbb3333", history)
    texts = ["\x00".join(f"{m['role']}\x01{m['content']}" for m in conversation) for conversation in (first, second)]
    before_marker = prompt.sections["user"].partition("{{marker}}")[0]
    static = "\x00".join(f"{m['role']}\x01{m['content']}" for m in first[:-1]) + "\x00user\x01" + before_marker
    same = [a == b for a, b in zip(*texts, strict=False)]
    assert texts[0][: same.index(False)] == static
    assert len(before_marker) < 20, "what could stand in the system section, ahead of the history, stands there"
