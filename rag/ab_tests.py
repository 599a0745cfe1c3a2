"""A/B tests: which prompt and which model a user's questions get while one runs, and what came of it.

Users are spread over the arms by a hash of the test's id and theirs: one is in the same arm each time, and another test
spreads them anew. A question without a user's id takes no part.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from indexes.errors import ChangeRequest, RagError
from rag.ask import Ask
from rag.backend import Backend
from rag.catalog import ab_tests
from rag.catalog.ab_tests import ABTest, Arm
from rag.catalog.records import Page, PageRequest
from rag.evaluation.outcomes import ArmResult, Difference, arm_results, differences
from rag.prompt import load_prompt
from rag.traces import DAY

Thing = Literal["prompt", "model"]
THINGS: tuple[Thing, ...] = get_args(Thing)
"""What an arm may have of its own."""
_SLACK = 1e-9
"""What shares that make up 1 on paper may miss it by."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What a test has come to: its arms in their order, and the differences of the others to the first."""

    test: ABTest
    since: int
    """Answers are counted from this second of 1970 on."""
    arms: Sequence[ArmResult]
    differences: Sequence[Difference]


# ---- keeping tests ---------------------------------------------------------------------------------------------------


def create(backend: Backend, name: str, arms: Sequence[Arm]) -> ABTest:
    """Begin a test.

    Raises ChangeRequest for arms that are not right (`invalid_arms`) and for a test over what another one that runs is
    over, too (`ab_test_running`): they could not be told apart. And what a model or a prompt that is not there raises.
    """
    _require_right(arms)
    for arm in arms:
        _require_there(backend, arm)
    with backend.database.write() as connection:
        for other in ab_tests.running(connection, backend.caller.tenant):
            for thing in THINGS:
                if _is_over(arms, thing) and _is_over(other.arms, thing):
                    raise ChangeRequest(
                        f"The A/B test {other.public_id} ({other.name}) is over the {thing} as well and still runs: "
                        "end it first.",
                        code="ab_test_running",
                        param="arms",
                    )
        return ab_tests.add_test(connection, backend.caller.tenant, name, arms)


def find(backend: Backend, public_id: str) -> ABTest:
    """A test. Raises NotThere."""
    with backend.database.read() as connection:
        return ab_tests.get_test(connection, backend.caller.tenant, public_id)


def list_tests(backend: Backend, page: PageRequest) -> Page[ABTest]:
    """All tests, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return ab_tests.list_tests(connection, backend.caller.tenant, page)


def end(backend: Backend, public_id: str) -> ABTest:
    """Let nobody take part in a test any more, for good. Raises NotThere."""
    with backend.database.write() as connection:
        ab_tests.end_test(connection, ab_tests.get_test(connection, backend.caller.tenant, public_id))
        return ab_tests.get_test(connection, backend.caller.tenant, public_id)


def delete(backend: Backend, public_id: str) -> ABTest:
    """Forget a test, running or not. Raises NotThere."""
    with backend.database.write() as connection:
        found = ab_tests.get_test(connection, backend.caller.tenant, public_id)
        ab_tests.delete_test(connection, found)
        return found


def report(backend: Backend, public_id: str) -> Report:
    """What the traces tell of a test, as long as every trace is kept: those that were judged stay longer, and alone
    would make up too large a share. Raises NotThere."""
    backend.traces.flush()
    test = find(backend, public_id)
    since = max(test.created_at, int(time.time() - backend.settings.traces.days * DAY))
    with backend.database.read() as connection:
        outcomes = ab_tests.outcomes_of(connection, backend.caller, test, since)
    results = arm_results(outcomes, [arm.name for arm in test.arms])
    return Report(test, since, results, differences(results))


# ---- taking part -----------------------------------------------------------------------------------------------------


def assigned(backend: Backend, ask: Ask, user: str | None) -> Ask:
    """A question with the prompt and the model of the user's arms.

    One that names a prompt, or a model, is left alone by tests over it, unless it names that of the first arm.
    """
    if not user:
        return ask
    with backend.database.read() as connection:
        running = ab_tests.running(connection, backend.caller.tenant)
    for test in running:
        arm = arm_of(test, user)
        if _takes_part(test, ask) and _is_there(backend, test, arm):
            arms = {**ask.arms, test.public_id: arm.name}
            ask = replace(ask, prompt=arm.prompt or ask.prompt, model=arm.model or ask.model, arms=arms)
    return ask


def arm_of(test: ABTest, user: str) -> Arm:
    """The arm of a user."""
    digest = hashlib.sha256(f"{test.public_id}\0{user}".encode("utf-8", "surrogatepass")).digest()
    place, end = int.from_bytes(digest[:8]) / 2**64, 0.0
    for arm in test.arms[:-1]:
        end += arm.share
        if place < end:
            return arm
    return test.arms[-1]


def _takes_part(test: ABTest, ask: Ask) -> bool:
    first = test.arms[0]
    return all(getattr(ask, thing) in (None, getattr(first, thing)) for thing in THINGS if _is_over(test.arms, thing))


def _is_there(backend: Backend, test: ABTest, arm: Arm) -> bool:
    """Whether an arm can answer; the settings may have changed since the test began."""
    try:
        _require_there(backend, arm)
    except RagError as error:
        log.warning("A user took no part in the A/B test %s: %s", test.public_id, error)
        return False
    return True


def _is_over(arms: Sequence[Arm], thing: Thing) -> bool:
    return any(getattr(arm, thing) is not None for arm in arms)


def _require_there(backend: Backend, arm: Arm) -> None:
    backend.models.get(arm.model)
    if arm.prompt is not None:
        folder = backend.settings.prompts
        load_prompt(arm.prompt, [folder] if folder else [])


def _require_right(arms: Sequence[Arm]) -> None:
    total = sum(arm.share for arm in arms)
    if len({arm.name for arm in arms}) < len(arms):
        raise _invalid("two have the same name")
    if len({(arm.prompt, arm.model) for arm in arms}) < len(arms):
        raise _invalid("two have the same prompt and model")
    if abs(total - 1) > _SLACK:
        raise _invalid(f"their shares are {total:g} in all, and must be 1")


def _invalid(why: str) -> ChangeRequest:
    return ChangeRequest(f"The arms cannot be compared: {why}.", code="invalid_arms", param="arms")
