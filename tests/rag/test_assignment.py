"""Who gets what while an experiment runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from indexes.errors import ChangeRequest, RagError
from rag.assignment import Choice, Experiment, choose, read_experiments
from rag.models.registry import ModelRegistry

MODEL = {"provider": "openai", "model": "m", "window": 4096, "output_limit": 256, "tokenizer": "o200k_base"}
MODELS = ModelRegistry({"big": MODEL, "small": MODEL}, default="small")
USERS = [f"user-{number}" for number in range(4_000)]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    packaged = (Path(__file__).parents[2] / "rag/prompts/answer.txt").read_text()
    (tmp_path / "warm.txt").write_text(packaged.replace("id: answer", "id: warm"))
    return tmp_path


def tone(**changes: Any) -> dict[str, Any]:
    arms = {"plain": {"share": 0.25}, "warm": {"share": 0.5, "prompt": "warm"}}
    return {"arms": arms, **changes}


def size(**changes: Any) -> dict[str, Any]:
    return {"arms": {"small": {"share": 0.5}, "big": {"share": 0.5, "model": "big"}}, **changes}


def one(prompts: Path, **changes: Any) -> Experiment:
    return read_experiments({"tone": tone(**changes)}, MODELS, prompts)["tone"]


def test_users_are_spread_by_the_shares_and_stay_where_they_are(prompts: Path) -> None:
    arms = [one(prompts).arm_of(user) for user in USERS]
    counted = Counter(arms)
    for arm, share in (("plain", 0.25), ("warm", 0.5), (None, 0.25)):
        assert abs(counted[arm] / len(USERS) - share) < 0.03, counted
    assert [one(prompts).arm_of(user) for user in USERS] == arms


def test_another_salt_or_name_spreads_them_anew(prompts: Path) -> None:
    first, salted = one(prompts), one(prompts, salt="november")
    named = read_experiments({"voice": tone()}, MODELS, prompts)["voice"]
    for other in (salted, named):
        both = Counter((first.arm_of(user), other.arm_of(user)) for user in USERS)
        assert abs(both["warm", "warm"] / len(USERS) - 0.25) < 0.03, "as if independent"


def test_a_larger_share_at_the_end_moves_nobody_who_was_in_an_arm(prompts: Path) -> None:
    grown = one(prompts, arms={"plain": {"share": 0.25}, "warm": {"share": 0.75, "prompt": "warm"}})
    moved = [user for user in USERS if one(prompts).arm_of(user) not in (None, grown.arm_of(user))]
    assert not moved


def test_what_a_request_gets(prompts: Path) -> None:
    experiments = read_experiments({"tone": tone(), "size": size()}, MODELS, prompts)
    of = {user: (experiments["tone"].arm_of(user), experiments["size"].arm_of(user)) for user in USERS[:50]}
    user = next(user for user, arms in of.items() if arms == ("warm", "big"))
    plain = next(user for user, arms in of.items() if arms == ("plain", "small"))
    outside = next(user for user, (arm, _) in of.items() if arm is None)
    both = {"tone": "warm", "size": "big"}
    for named, expected in {
        (None, None): Choice("big", "warm", both),
        ("small", None): Choice("small", "warm", {"tone": "warm"}),
        (None, "answer"): Choice("big", "answer", {"size": "big"}),
        ("small", "answer"): Choice("small", "answer"),
        ("size", None): Choice("big", "warm", both),
    }.items():
        assert choose(experiments, *named, user) == expected, named
    assert choose(experiments, None, None, plain) == Choice(None, None, {"tone": "plain", "size": "small"})
    assert choose(experiments, None, None, outside).prompt is None
    for nobody in (None, ""):
        assert choose(experiments, "size", None, nobody) == Choice(None, None)
    assert choose({}, "small", None, user) == Choice("small", None)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (tone(arms={"a": {"share": 0.6}, "b": {"share": 0.6, "prompt": "warm"}}), "more than 1"),
        (tone(arms={"a": {"share": 0.5}, "b": {"share": 0.5}}), "no arm"),
        (tone(arms={"a": {"share": 1.0, "prompt": "warm"}}), "arms"),
        (tone(arms={"a": {"share": 0}, "b": {"share": 0.5, "prompt": "warm"}}), "share"),
        (tone(arms={"a": {"share": 0.5}, "b": {"share": 0.5, "promt": "warm"}}), "promt"),
        (tone(arms={"a": {"share": 0.5}, "b": {"share": 0.5, "prompt": "cold"}}), "cold"),
        (tone(arms={"a": {"share": 0.5}, "b": {"share": 0.5, "model": "none"}}), "none"),
        (tone(slat="x"), "slat"),
    ],
)
def test_a_table_that_is_not_right_is_refused(prompts: Path, table: dict[str, Any], words: str) -> None:
    with pytest.raises(RagError, match=words):
        read_experiments({"tone": table}, MODELS, prompts)


def test_names_and_things_are_not_shared(prompts: Path) -> None:
    with pytest.raises(ChangeRequest, match="a model has the same name"):
        read_experiments({"big": tone()}, MODELS, prompts)
    with pytest.raises(ChangeRequest, match="'tone' is over the prompt"):
        read_experiments({"tone": tone(), "voice": tone()}, MODELS, prompts)
