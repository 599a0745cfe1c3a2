"""Arms asked over a real store with a toy embedder; what must come out is worked out here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.errors import ChangeRequest, TryLater
from ingest import evaluate, evaluations, intake
from ingest.answers import AnswerCache
from ingest.arms import Arm, EvaluationRequest
from ingest.evaluate import Plan, result_of, run
from ingest.evaluations import step, submit
from ingest.scratch import fill_scratch
from rag import generations, question_sets
from rag.ask import Ask, answer, prepare
from rag.backend import Backend
from rag.catalog import batches
from rag.catalog import evaluations as rows
from rag.catalog.records import Store
from rag.embedders import EMBEDDERS
from rag.evaluation.gate import verdict
from rag.evaluation.questions import Label, Question, read_lines
from rag.settings import GateSettings
from rag.traces import give_feedback
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.fakes import counting_llm
from tests.ingest.test_runner import wait_for

KETTLE = "# Kettles\n\nYou may return a kettle within thirty days of the sale.\n"
LAMP = "# Lamps\n\nA lamp burns for nine evenings. It is charged in two hours.\n"
PARCEL = (
    "# Parcels\n\nThe boat to Norway leaves on Mondays. It carries every parcel, large or small, and comes back on "
    "Thursdays with fish for the market and letters for the town hall.\n"
)
QUESTIONS = read_lines(
    [
        '{"id": "kettle", "question": "May I return a kettle?", "labels": [{"document": "kettle.md", "text": '
        '"within thirty days"}], "answers": ["within thirty days"]}',
        '{"id": "lamp", "question": "How long does a lamp burn?", "labels": [{"text": "nine  evenings"}]}',
        '{"id": "boat", "question": "When does the boat leave?", "labels": [{"document": "parcel.md", "start": 0, '
        '"end": 9, "grade": 2}, {"document": "lamp.md", "grade": 0}, {"document": "nowhere.md"}]}',
        '{"id": "none", "question": "Who was Ada?", "unanswerable": true}',
    ]
)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    patch = pytest.MonkeyPatch()
    patch.setitem(EMBEDDERS, "noisy", "tests.fakes.noisy_embedder:NoisyEmbedder")
    settings = toy_settings(
        tmp_path_factory.mktemp("evaluate"), retrieval__min_relevance=0.0, traces__capture=True
    ).model_copy(
        update={
            "embedders": {"noisy": {"provider": "noisy", "model": "toy-384"}},
            "models": {
                "counted": counting_llm.ALIAS,
                "failing": {**counting_llm.ALIAS, "provider": "tests.fakes.counting_llm:AwayLLM"},
            },
            "gate": GateSettings(metric="nDCG@10"),
        }
    )
    with open_backend(settings) as opened:
        yield opened
    patch.undo()


@pytest.fixture(scope="module")
def store(backend: Backend) -> Store:
    made = intake.create_store(backend, "shop")
    for name, text in (("kettle.md", KETTLE), ("lamp.md", LAMP), ("parcel.md", PARCEL)):
        add_text(backend, made, name, text)
    wait_until_idle(backend)
    return made


def test_every_measure_is_what_its_definition_says(backend: Backend, store: Store) -> None:
    (outcome,) = run(backend, QUESTIONS, [(Arm(name="a"), store)])
    numbers = {source: document.id for source, document in all_documents(backend, store).items()}
    best = {"kettle": "kettle.md", "lamp": "lamp.md", "boat": "parcel.md"}
    for id_, source in best.items():
        assert outcome.rankings[id_][0] == numbers[source]
        assert outcome.values["nDCG@10"][id_] == outcome.values["RR@10"][id_] == 1.0
        assert outcome.values["P@5"][id_] == pytest.approx(1 / 5)
    assert outcome.values["R@100"].keys() == best.keys()
    assert (outcome.left_out.labels, outcome.left_out.first) == (1, ("boat: 'nowhere.md'",))
    # Each document is one chunk, and all three together are far from the budget.
    size = sum(len(text) for text in (KETTLE, LAMP, PARCEL))
    assert outcome.values["span_recall"] == dict.fromkeys(best, 1.0)
    assert outcome.values["span_precision"]["kettle"] == pytest.approx(len("within thirty days") / size, rel=0.05)
    assert outcome.values["span_precision"]["lamp"] == pytest.approx(len("nine evenings") / size, rel=0.05)
    assert outcome.values["context_coverage"]["boat"] == 1.0
    assert outcome.values["context_duplicates"] == dict.fromkeys([*best, "none"], 0.0)
    assert 0 < outcome.values["context_budget_use"]["none"] < 0.1
    assert outcome.tokens["embedded"][0] == backend.embedders.open("toy-384").tokenizer.count(QUESTIONS[0].text)
    assert all(
        0 < beyond <= whole
        for beyond, whole in zip(
            outcome.milliseconds["retrieval_beyond_embedding"], outcome.milliseconds["retrieval"], strict=True
        )
    )


def test_labels_that_name_nothing_at_all_are_refused(backend: Backend, store: Store) -> None:
    lost = [Question("a", "A kettle?", "test", (Label("else.md"), Label("kettle.md", text="no such words")))]
    with pytest.raises(ChangeRequest, match="None of the 2 labels") as caught:
        run(backend, lost, [(Arm(name="a"), store)])
    assert caught.value.code == "unknown_documents"
    far = [Question("a", "A kettle?", "test", (Label("kettle.md", start=10, end=10_000), Label("lamp.md")))]
    (outcome,) = run(backend, far, [(Arm(name="a"), store)])
    assert outcome.left_out.labels == 1


def test_what_arms_share_is_retrieved_once(backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = evaluate.retrieve

    def counted(*given: object) -> object:
        asked.append(str(given[2]))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "retrieve", counted)
    alike = [Arm(name=f"t{t}", model="counted", temperature=t / 10) for t in range(3)]
    arms = [(arm, store) for arm in (*alike, Arm(name="words", mode="keyword"))]
    outcomes = run(backend, QUESTIONS, arms, Plan(answers=True))
    # Two ways of retrieving: a warm-up each, and each question as a user asks it and once for the ranking.
    assert len(asked) == 2 * (1 + 2 * len(QUESTIONS))
    assert outcomes[0].rankings is outcomes[2].rankings
    assert outcomes[3].tokens["embedded"] == [0] * len(QUESTIONS)


def test_answers_are_measured_and_asked_for_once(backend: Backend, store: Store, tmp_path: Path) -> None:
    questions = [question for question in QUESTIONS if question.id in ("kettle", "lamp")]
    cache, plan = AnswerCache(tmp_path / "answers"), Plan(answers=True)
    counting_llm.ASKED.clear()

    def asked(**fields: object) -> tuple[int, evaluate.Outcome]:
        before = len(counting_llm.ASKED)
        arm = Arm.model_validate({"name": "a", "model": "counted", **fields})
        (outcome,) = run(backend, questions, [(arm, store)], plan, cache=cache)
        return len(counting_llm.ASKED) - before, outcome

    (first, one), (again, two) = asked(), asked()
    assert (first, again) == (2, 0)
    # The model repeats the question, of whose words the known answer has none.
    assert one.values["answer_recall"] == two.values["answer_recall"] == {"kettle": 0.0}
    assert one.tokens["prompt"] == two.tokens["prompt"] == [100, 100]
    assert one.tokens["completion"] == [7, 7]
    assert [asked(temperature=0.5)[0], asked(max_passages=1)[0], asked(temperature=0.5)[0]] == [2, 2, 0]
    with pytest.raises(TryLater, match="is away"):
        run(backend, questions, [(Arm(name="f", model="failing"), store)], plan)
    (quoted,) = run(backend, questions, [(Arm(name="q", model="extractive"), store)], plan)
    assert quoted.values["answer_recall"]["kettle"] == 1.0


# ---- a comparison and its gate ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpora(backend: Backend) -> tuple[Store, Store, list[Question]]:
    """Fifty-five documents of random words, under a toy and under one that is mostly noise."""
    rng = random.Random(5)
    words = ["".join(rng.choices("bcdfgklmnprst", k=2)) + rng.choice("aeiou") + str(n) for n in range(250)]
    texts = {f"d{number}.txt": rng.sample(words, 25) for number in range(55)}
    made = [intake.create_store(backend, name, embedder=name) for name in ("toy-384", "noisy")]
    for corpus in made:
        for source, each in texts.items():
            add_text(backend, corpus, source, " ".join(each))
    wait_until_idle(backend)
    questions = [
        Question(source, " ".join(rng.sample(each, 4)), "test", (Label(source),)) for source, each in texts.items()
    ]
    return made[0], made[1], questions


def test_a_noisy_embedder_trips_the_gate_and_the_way_back_passes(
    backend: Backend, corpora: tuple[Store, Store, list[Question]]
) -> None:
    good, noisy, questions = corpora
    arms = [(Arm(name=name, mode="dense"), store) for name, store in (("good", good), ("noisy", noisy))]
    same = (Arm(name="same", mode="dense"), good)
    plan = Plan(contexts=False)
    outcomes = run(backend, questions, [*arms, same], plan)
    forth = result_of(backend, questions, outcomes, gated=True)
    back = result_of(backend, questions, outcomes[1::-1], gated=True)
    assert [said.reason for said in forth.verdicts] == ["not_better", "passed"]
    assert [said.reason for said in back.verdicts] == ["passed"]
    worse, alike = (one.measures["nDCG@10"] for one in forth.comparisons)
    assert worse.p is not None
    assert worse.p < 0.01
    assert (alike.difference, alike.p, alike.better, alike.worse) == (0.0, 1.0, 0, 0)
    assert forth.comparisons[0].worsened[0].question in {question.text for question in questions}
    few = verdict(GateSettings(metric="nDCG@10", minimum_n=56), back.comparisons[0].measures["nDCG@10"])
    assert few.reason == "too_few_questions"


@pytest.mark.parametrize("passes", [False, True])
def test_a_promotion_stands_on_the_evaluation_of_that_very_generation(
    backend: Backend, corpora: tuple[Store, Store, list[Question]], passes: bool
) -> None:
    good, noisy, questions = corpora
    store, embedder = (noisy, "toy-384") if passes else (good, "noisy")
    question_sets.create(backend, "gated", map(question_sets.as_line, questions))
    candidate = intake.create_generation(backend, store, embedder=embedder).generation.public_id
    live = backend.live_generation(store).public_id

    def promote() -> str:
        gate = generations.gate_of(backend)
        return generations.promote(backend, store, candidate, gate=gate).generation.state

    wait_for(lambda: generations.get_generation(backend, store, candidate).generation.state == "ready")
    with pytest.raises(ChangeRequest, match="There is no comparison in nDCG@10"):
        promote()
    arms = [{"name": "now"}, {"name": "new", "generation": candidate}]
    body = {"vector_store_id": store.public_id, "question_set": "gated", "arms": arms}
    asked = submit(backend, EvaluationRequest.model_validate(body))
    assert [arm["generation"] for arm in asked.request["arms"]] == [live, candidate]
    wait_for(lambda: evaluations.find(backend, asked.public_id).state == "completed")
    if passes:
        assert promote() == "live"
    else:
        with pytest.raises(ChangeRequest, match="nDCG@10 changes by -0"):
            promote()
    assert backend.live_generation(store).public_id == (candidate if passes else live)


def test_a_scratch_store_has_the_same_documents_split_in_another_way(backend: Backend, store: Store) -> None:
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 32, "chunk_overlap_tokens": 0}}
    copy = fill_scratch(backend, store, embedder=None, chunking=None)
    assert sum(document.embedded for document in all_documents(backend, copy).values()) == 0
    scratch = fill_scratch(backend, store, embedder="toy-256", chunking=chunking)
    documents = all_documents(backend, scratch)
    assert documents.keys() == all_documents(backend, store).keys()
    assert {document.state for document in documents.values()} == {"completed"}
    assert max(document.chunks_total for document in documents.values()) > 1
    assert fill_scratch(backend, store, embedder="toy-256", chunking=chunking).id == scratch.id
    (whole, split) = run(backend, QUESTIONS, [(Arm(name="a"), copy), (Arm(name="b"), scratch)])
    assert whole.left_out == split.left_out
    assert whole.values["span_recall"].keys() == split.values["span_recall"].keys()
    for made in (copy, scratch):
        intake.delete_store(backend, made)


# ---- the queue -------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Backend, int]]:
    """The backend with a worker of the test's own, beside which nobody else looks."""
    monkeypatch.setattr(evaluations, "step", lambda *_: False)
    with backend.database.write() as connection:
        worker = batches.join(connection, "test")
    yield backend, worker
    with backend.database.write() as connection:
        batches.leave(connection, worker)


def request(backend: Backend, **fields: object) -> rows.Evaluation:
    lines = [question for question in QUESTIONS if question.id != "boat"]
    made = question_sets.create(backend, "shop", map(question_sets.as_line, lines))
    arms = [{"name": "a"}, {"name": "b", "mode": "keyword"}]
    body = {"vector_store_id": "shop", "question_set": made.public_id, "arms": arms, **fields}
    return submit(backend, EvaluationRequest.model_validate(body))


def again(backend: Backend, evaluation: rows.Evaluation) -> rows.Evaluation:
    with backend.database.read() as connection:
        return rows.get_evaluation(connection, evaluation.tenant, evaluation.public_id)


def test_an_evaluation_ends_with_its_result(queue: tuple[Backend, int]) -> None:
    backend, worker = queue
    waiting = request(backend)
    assert (waiting.state, waiting.total) == ("queued", 3)
    assert step(backend, worker)
    assert not step(backend, worker)
    done = again(backend, waiting)
    assert (done.state, done.done, done.worker_id) == ("completed", 3, None)
    assert done.result is not None
    result = evaluations.RESULT.validate_python(done.result)
    assert [arm.arm.name for arm in result.arms] == ["a", "b"]
    assert result.comparisons[0].measures["nDCG@10"].n == 2
    assert result.verdicts[0].reason == "too_few_questions"


def test_one_that_a_worker_died_with_is_begun_anew_and_the_dead_change_nothing(queue: tuple[Backend, int]) -> None:
    backend, worker = queue
    waiting = request(backend)
    with backend.database.write() as connection:
        dead = batches.join(connection, "dead")
        taken = rows.claim(connection, dead)
    assert taken is not None
    assert not step(backend, worker), "a living worker keeps what it has"
    with backend.database.write() as connection:
        batches.leave(connection, dead)
    assert step(backend, worker)
    assert again(backend, waiting).state == "completed"
    with backend.database.write() as connection:
        assert not rows.advance(connection, taken, state="failed", error_code="x", error_message="late")


def test_one_that_is_stopped_waits_and_one_that_is_deleted_is_dropped(
    queue: tuple[Backend, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, worker = queue
    waiting = request(backend)
    assert not step(backend, worker, lambda: True)
    stopped = again(backend, waiting)
    assert (stopped.state, stopped.crashes, stopped.ended_at) == ("queued", 0, None)

    def deleted() -> bool:
        with backend.database.write() as connection:
            rows.delete_evaluation(connection, waiting)
        return False

    monkeypatch.setattr(evaluations, "TELL_EVERY", 0.0)
    assert step(backend, worker, deleted), "it is begun anew"
    assert not step(backend, worker)


def test_one_that_the_server_dies_of_fails_in_the_end(queue: tuple[Backend, int]) -> None:
    backend, worker = queue
    waiting = request(backend)
    for _ in range(evaluations.CRASHES):
        with backend.database.write() as connection:
            assert rows.claim(connection, worker) is not None
    assert step(backend, worker)
    failed = again(backend, waiting)
    assert (failed.state, failed.error_code, failed.crashes) == ("failed", "server_error", evaluations.CRASHES)


def test_what_goes_wrong_meanwhile_is_its_end(queue: tuple[Backend, int]) -> None:
    backend, worker = queue
    waiting = request(backend)
    question_sets.delete(backend, str(waiting.request["question_set"]))
    assert step(backend, worker)
    failed = again(backend, waiting)
    assert (failed.state, failed.error_code, failed.result) == ("failed", "question_set_not_found", None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"vector_store_id": "none"}, "vector_store_not_found"),
        ({"question_set": "none"}, "question_set_not_found"),
        ({"arms": [{"name": "a", "vector_store_id": "none"}]}, "vector_store_not_found"),
        ({"arms": [{"name": "a", "model": "none"}]}, "model_not_found"),
        ({"arms": [{"name": "a", "prompt": "none"}]}, "unknown_prompt"),
        ({"measures": ["none@10"]}, "unknown_measure"),
    ],
)
def test_what_is_not_there_is_refused_at_once(backend: Backend, store: Store, fields: dict, code: str) -> None:
    with pytest.raises(Exception) as caught:
        request(backend, **fields)
    assert getattr(caught.value, "code", None) == code


def test_versions_stay_as_they_are(backend: Backend) -> None:
    lines = ['{"id": "a", "question": "One?", "answers": ["1"]}']
    first = question_sets.create(backend, "versions", lines)
    second = question_sets.create(backend, "versions", ['{"id": "b", "question": "Two?", "answers": ["2"]}'], 1.0)
    assert (first.version, second.version) == (1, 2)
    assert question_sets.find(backend, "versions") == second
    assert question_sets.find(backend, "versions@1") == first
    assert [one.id for one in question_sets.read(backend, first)] == ["a"]
    assert [one.split for one in question_sets.read(backend, second)] == ["dev"]
    assert question_sets.read(backend, second, "test") == []
    question_sets.delete(backend, second.public_id)
    assert question_sets.find(backend, "versions") == first
    assert question_sets.create(backend, "versions", lines).version == 3


# ---- feedback --------------------------------------------------------------------------------------------------------


async def test_feedback_becomes_questions(backend: Backend, store: Store) -> None:
    async def told(question: str, *feedback: dict) -> str:
        prepared = prepare(backend, Ask((store,), ({"role": "user", "content": question},), kind="response"))
        async for _ in answer(backend, prepared):
            pass
        for said in feedback:
            give_feedback(backend, prepared.trace_id, {"name": "n", **said})
        return prepared.trace_id

    up = await told("How long may I return a kettle?", {"value": True})
    down = await told("How is a lamp charged?", {"value": 1}, {"label": "thumbs_down"})
    right = await told("When does the boat leave?", {"value": False}, {"corrected_answer": "On Mondays."})
    await told("HOW long may  I return a kettle?", {"label": "good"})
    await told("What of fish?", {"value": 0.7}, {"label": "curt"})
    found = question_sets.from_feedback(backend, store)
    questions = {question.id: question for question in found.questions}
    assert questions.keys() == {up, down, right}
    (label,) = questions[up].labels
    assert label.document == "kettle.md"
    assert str(label.text) in KETTLE
    assert not questions[down].judged
    assert (questions[right].labels, questions[right].answers) == ((), ("On Mondays.",))
    assert (found.without_text, found.without_thumb) == (0, 1)
    made = question_sets.create(backend, "told", map(question_sets.as_line, found.questions))
    (outcome,) = run(backend, question_sets.read(backend, made), [(Arm(name="a"), store)])
    assert outcome.values["nDCG@10"] == {up: 1.0}
