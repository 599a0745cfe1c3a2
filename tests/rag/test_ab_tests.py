"""Who gets what while an A/B test runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.errors import ChangeRequest, NotThere, RagError
from rag import ab_tests
from rag.ab_tests import arm_of, assigned
from rag.access import Caller
from rag.ask import Ask
from rag.backend import Backend
from rag.catalog.ab_tests import ABTest, Arm
from rag.catalog.records import PageRequest
from tests.backends import open_backend, toy_settings

MODEL = {"provider": "openai", "model": "m", "window": 4096, "output_limit": 256, "tokenizer": "o200k_base"}
USERS = [f"user-{number}" for number in range(4_000)]
TONE = (Arm("plain", 0.75, None, None), Arm("warm", 0.25, "warm", None))
SIZE = (Arm("small", 0.5, None, "small"), Arm("big", 0.5, None, "big"))
PACKAGED = (Path(__file__).parents[2] / "rag/prompts/answer.txt").read_text()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    prompts = tmp_path_factory.mktemp("prompts")
    (prompts / "warm.txt").write_text(PACKAGED.replace("id: answer", "id: warm"))
    settings = toy_settings(tmp_path_factory.mktemp("data"), prompts=str(prompts))
    settings = settings.model_copy(update={"models": {"big": MODEL, "small": MODEL}})
    with open_backend(settings, jobs=False) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _afterwards(backend: Backend) -> Iterator[None]:
    yield
    for test in ab_tests.list_tests(backend, PageRequest()).rows:
        ab_tests.delete(backend, test.public_id)


def asking(model: str | None = None, prompt: str | None = None) -> Ask:
    return Ask((), ({"role": "user", "content": "What?"},), model=model, prompt=prompt)


def user_in(*arms: tuple[ABTest, str]) -> str:
    """A user of these arms."""
    return next(user for user in USERS if all(arm_of(test, user).name == arm for test, arm in arms))


def test_users_are_spread_by_the_shares_as_the_hash_says(backend: Backend) -> None:
    test = ab_tests.create(backend, "tone", TONE)
    for user in USERS[:200]:
        digest = hashlib.sha256(f"{test.public_id}\0{user}".encode()).hexdigest()
        assert arm_of(test, user).name == ("plain" if int(digest[:16], 16) / 16**16 < 0.75 else "warm")
    counted = Counter(arm_of(test, user).name for user in USERS)
    assert abs(counted["warm"] / len(USERS) - 0.25) < 0.03


def test_another_test_spreads_them_anew(backend: Backend) -> None:
    first = ab_tests.create(backend, "tone", TONE)
    ab_tests.end(backend, first.public_id)
    second = ab_tests.create(backend, "tone", TONE)
    both = Counter((arm_of(first, user).name, arm_of(second, user).name) for user in USERS)
    assert abs(both["warm", "warm"] / len(USERS) - 0.0625) < 0.02, "as if independent"


def test_what_a_question_gets(backend: Backend) -> None:
    tone, size = ab_tests.create(backend, "tone", TONE), ab_tests.create(backend, "size", SIZE)
    user = user_in((tone, "warm"), (size, "big"))
    in_tone, in_size = {tone.public_id: "warm"}, {size.public_id: "big"}
    for (model, prompt), expected in {
        (None, None): ("big", "warm", in_tone | in_size),
        ("small", None): ("big", "warm", in_tone | in_size),  # that of the first arm
        ("big", None): ("big", "warm", in_tone),
        ("extractive", None): ("extractive", "warm", in_tone),
        (None, "answer"): ("big", "answer", in_size),
        ("big", "answer"): ("big", "answer", {}),
    }.items():
        got = assigned(backend, asking(model, prompt), user)
        assert (got.model, got.prompt, got.arms) == expected, (model, prompt)
    plain = assigned(backend, asking(), user_in((tone, "plain"), (size, "small")))
    assert (plain.model, plain.prompt) == ("small", None)
    for nobody in (None, ""):
        assert assigned(backend, asking(), nobody) == asking()
    ab_tests.end(backend, tone.public_id)
    assert assigned(backend, asking(), user).arms == in_size
    elsewhere = backend.for_caller(Caller("another"))
    assert assigned(elsewhere, asking(), user) == asking()


def test_an_arm_that_is_gone_from_the_settings_costs_no_answer(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    tone = ab_tests.create(backend, "tone", TONE)
    folder = backend.settings.prompts
    assert folder is not None
    text = (folder / "warm.txt").read_text()
    (folder / "warm.txt").unlink()
    try:
        assert assigned(backend, asking(), user_in((tone, "warm"))) == asking()
    finally:
        (folder / "warm.txt").write_text(text)
    assert tone.public_id in caplog.text
    assert assigned(backend, asking(), user_in((tone, "plain"))).arms == {tone.public_id: "plain"}


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ((Arm("a", 0.6, None, None), Arm("b", 0.6, "warm", None)), "1.2 in all"),
        ((Arm("a", 0.5, None, None), Arm("b", 0.4, "warm", None)), "0.9 in all"),
        ((Arm("a", 0.5, None, None), Arm("b", 0.5, None, None)), "same prompt and model"),
        ((Arm("a", 0.5, None, None), Arm("a", 0.5, "warm", None)), "same name"),
        ((Arm("a", 0.5, None, None), Arm("b", 0.5, "cold", None)), "cold"),
        ((Arm("a", 0.5, None, None), Arm("b", 0.5, "../warm", None)), "warm"),
        ((Arm("a", 0.5, None, None), Arm("b", 0.5, None, "none")), "none"),
    ],
)
def test_arms_that_are_not_right_are_refused(backend: Backend, arms: tuple[Arm, ...], words: str) -> None:
    with pytest.raises(RagError, match=words):
        ab_tests.create(backend, "wrong", arms)
    assert not ab_tests.list_tests(backend, PageRequest()).rows


def test_two_over_the_same_thing_do_not_run_at_once(backend: Backend) -> None:
    tone = ab_tests.create(backend, "tone", TONE)
    with pytest.raises(ChangeRequest, match=tone.public_id) as refused:
        ab_tests.create(backend, "both", (Arm("a", 0.5, None, None), Arm("b", 0.5, "warm", "big")))
    assert refused.value.code == "ab_test_running"
    ab_tests.create(backend.for_caller(Caller("another")), "tone", TONE)
    ended = ab_tests.end(backend, tone.public_id)
    assert ab_tests.end(backend, tone.public_id).ended_at == ended.ended_at
    ab_tests.create(backend, "tone", TONE)


def test_a_test_is_its_tenants(backend: Backend) -> None:
    tone = ab_tests.create(backend, "tone", TONE)
    elsewhere = backend.for_caller(Caller("another"))
    for do in (ab_tests.find, ab_tests.report, ab_tests.end, ab_tests.delete):
        with pytest.raises(NotThere):
            do(elsewhere, tone.public_id)
