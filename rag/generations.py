"""What may be done with the generations of a store: make, look at, pause, resume, promote, roll back, retire.

    create ──> building ──> ready ──promote──> live ──(another is promoted)──> standby ──roll back──> live
                  failed <── by itself, resumed by `resume`          retire ──> retired, from any but live

Each is one transaction. Promotion asks that the generation holds everything that the store shows, and flips it with the
one that was live: no search sees anything between the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from indexes import require_keyword_index, require_vector_index
from indexes.errors import ChangeRequest, RagError, TryLater
from rag import question_sets
from rag.backend import Backend
from rag.catalog import evaluations, generations, mirrored, stores
from rag.catalog.mirrored import Mirrored
from rag.catalog.records import FILLED, ChunkSet, Filled, Generation, GenerationEvent, Store
from rag.embedders import Embedder
from rag.evaluation.comparing import Difference
from rag.evaluation.gate import Verdict, verdict
from rag.remote import is_remote, require_together
from rag.rerankers import NONE
from rag.spaces import Space

WAIT_SECONDS = 5.0
"""For how long a promotion waits for what came last."""
LOOK_EVERY = 0.02
_DIFFERENCE = TypeAdapter(Difference)


@dataclass(frozen=True)
class Splitting:
    """A way of splitting: what names it whatever counts its tokens, its settings, and the most tokens of a chunk that
    they ask for (None: what the embedder reads). `as_before` will do with chunks made for an embedder that reads less.
    """

    fingerprint: str
    settings: Mapping[str, Any]
    max_tokens: int | None
    as_before: bool


Gate = Callable[[Connection, Generation, Generation], Verdict]
"""Given a generation and the live one, says whether the first may take the place of the second."""


@dataclass(frozen=True)
class GenerationSummary:
    """A generation with what is known of it; `filled` is None for one that is not followed."""

    generation: Generation
    space: Space
    chunk_set: ChunkSet
    filled: Filled | None
    events: Sequence[GenerationEvent]
    mirrored: Mirrored | None

    @property
    def seconds_left(self) -> float | None:
        """How long filling goes on, by how fast it went of late; None where that is not known."""
        rate = self.generation.characters_per_second
        if self.filled is None or not rate:
            return None
        return (self.filled.characters_total - self.filled.characters) / rate


def gate_of(backend: Backend) -> Gate | None:
    """What a promotion must pass, None where anything that is complete may be promoted: the newest evaluation that
    compares the generation with the live one, on the gate's question set where it names one.

    Raises NotThere for a question set that is not there.
    """
    settings = backend.settings.gate
    if settings.metric is None:
        return None
    asked = None if settings.question_set is None else question_sets.find(backend, settings.question_set).public_id

    def gate(connection: Connection, generation: Generation, live: Generation) -> Verdict:
        tenant, pair = backend.caller.tenant, (live.public_id, generation.public_id)
        found = evaluations.comparison_of(connection, tenant, generation.store_id, pair, asked)
        measured = None if found is None else found["measures"].get(settings.metric)
        return verdict(settings, None if measured is None else _DIFFERENCE.validate_python(measured))

    return gate


# ---- looking ---------------------------------------------------------------------------------------------------------


def list_generations(backend: Backend, store: Store) -> list[GenerationSummary]:
    """The generations of a store, oldest first."""
    with backend.database.read() as connection:
        return _summaries(connection, store, generations.generations_of(connection, store.id))


def get_generation(backend: Backend, store: Store, public_id: str) -> GenerationSummary:
    """One generation of a store. Raises NotThere."""
    with backend.database.read() as connection:
        return _summaries(connection, store, [generations.get_generation(connection, store, public_id)])[0]


def _summaries(connection: Connection, store: Store, found: Sequence[Generation]) -> list[GenerationSummary]:
    events, live = generations.events_of(connection, store.id), generations.live_generation(connection, store.id)
    return [
        GenerationSummary(
            generation,
            stores.get_space(connection, generation.space_id)[0],
            stores.get_chunk_set(connection, generation.chunk_set_id),
            generations.filled(connection, generation) if generation.state != "retired" else None,
            [event for event in events if event.generation_id == generation.id],
            mirrored.summary(connection, generation, live),
        )
        for generation in found
    ]


# ---- making ----------------------------------------------------------------------------------------------------------


def create(
    backend: Backend,
    store: Store,
    alias: str,
    splitting: Splitting,
    *,
    vector_index: str | None = None,
    keyword_index: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> GenerationSummary:
    """Make a generation beside the live one, to be filled in the background.

    It takes the live one's indexes unless others are named. Its chunks are those of another generation where they are
    split alike, counted alike, and not too long for this embedder; else the stored texts are split again.
    Raises ChangeRequest and Unsupported for an embedder, a reranker or an index that is not there, and what an embedder
    raises.
    """
    if (reranker := (settings or {}).get("retrieval", {}).get("reranker", NONE)) != NONE:
        backend.rerankers.spec(reranker)
    embedder = backend.embedders.open(alias)
    live = backend.live_generation(store)
    indexes = vector_index or live.vector_index, keyword_index or live.keyword_index
    _require_indexes(*indexes)
    space_id = backend.ensure_space(embedder)
    counted = _counting(backend, live)
    with backend.database.write() as connection:
        live = generations.live_generation(connection, store.id)
        if counted is not None:
            stores.fix_chunk_set(connection, live.chunk_set_id, *counted)
        values = {
            "space_id": space_id,
            "chunk_set_id": _chunk_set(connection, live, splitting, embedder),
            "embedder": alias,
            "build": embedder.build,
            "vector_index": indexes[0],
            "keyword_index": indexes[1],
            "settings": dict(settings or {}),
            "state": "building",
        }
        made = generations.create_generation(connection, store, values)
        generations.note_event(connection, made, "created", backend.caller.name)
    backend.background_waiting.set()
    return get_generation(backend, store, made.public_id)


def _require_indexes(vector_index: str, keyword_index: str) -> None:
    require_vector_index(vector_index)
    require_keyword_index(keyword_index)
    require_together(vector_index, keyword_index)


def _counting(backend: Backend, live: Generation) -> tuple[str, int] | None:
    """By whose tokens the live generation's chunks are counted where its set does not say, and up to which number; None
    where its embedder cannot be opened any more."""
    try:
        embedder = backend.embedder(live)
    except RagError:
        return None
    return embedder.tokenizer.name, embedder.limit


def _chunk_set(connection: Connection, live: Generation, splitting: Splitting, embedder: Embedder) -> int:
    """A chunk set whose chunks this embedder can take, which is found or made."""
    tokenizer, limit = embedder.tokenizer.name, embedder.limit
    of_live = stores.get_chunk_set(connection, live.chunk_set_id)
    if splitting.as_before and _takes(of_live, tokenizer, limit):
        return of_live.id
    for found in stores.chunk_sets_of(connection, live.store_id, splitting.fingerprint):
        alike = _size(splitting, found.token_limit or limit) == _size(splitting, limit)
        if alike and _takes(found, tokenizer, limit):
            return found.id
    named = splitting.fingerprint, splitting.settings
    return stores.make_chunk_set(connection, live.store_id, *named, tokenizer, limit)


def _takes(chunk_set: ChunkSet, tokenizer: str, limit: int) -> bool:
    """Whether an embedder with this tokenizer and limit takes every chunk of a set, present and to come."""
    return chunk_set.tokenizer == tokenizer and chunk_set.token_limit is not None and chunk_set.token_limit <= limit


def _size(splitting: Splitting, limit: int) -> int:
    return min(splitting.max_tokens or limit, limit)


# ---- pausing ---------------------------------------------------------------------------------------------------------


def pause(backend: Backend, store: Store, public_id: str) -> GenerationSummary:
    """Stop filling a generation until it is resumed; what it holds stays. Harmless when repeated.

    Raises ChangeRequest (`generation_not_filled`) for one that is not filled.
    """
    with backend.database.write() as connection:
        generation = generations.get_generation(connection, store, public_id)
        if generations.set_paused(connection, generation, True):
            generations.note_event(connection, generation, "paused", backend.caller.name)
        elif not generation.paused:
            raise _not_filled(generation, "paused")
    return get_generation(backend, store, public_id)


def resume(backend: Backend, store: Store, public_id: str) -> GenerationSummary:
    """Go on filling a generation that was paused, or that failed. Harmless when repeated.

    Raises ChangeRequest (`generation_not_filled`) for one that is live or retired.
    """
    with backend.database.write() as connection:
        generation = generations.get_generation(connection, store, public_id)
        # An engine of its own was told of nothing since: what it was given is looked at once more.
        if generations.set_paused(connection, generation, False) or generations.begin_again(
            connection, generation, from_nothing=is_remote(generation)
        ):
            generations.note_event(connection, generation, "resumed", backend.caller.name)
        elif generation.state in ("live", "retired"):
            raise _not_filled(generation, "resumed")
    backend.background_waiting.set()
    return get_generation(backend, store, public_id)


def _not_filled(generation: Generation, what: str) -> ChangeRequest:
    return ChangeRequest(
        f"The generation {generation.public_id} is {generation.state}: there is no filling to be {what}.",
        code="generation_not_filled",
        param="generation",
    )


# ---- promoting -------------------------------------------------------------------------------------------------------


def promote(
    backend: Backend,
    store: Store,
    public_id: str,
    *,
    gate: Gate | None = None,
    force: bool = False,
    wait_seconds: float = WAIT_SECONDS,
) -> GenerationSummary:
    """Let a generation answer from now on; the one that did is kept up to date as a standby.

    Waits until it holds what came last. `force` goes past the gate, and is recorded with what the gate said.
    Raises NotThere; ChangeRequest: `generation_live`, `generation_not_ready`, `generation_failed`, `generation_retired`
    for one in another state, `generation_paused` for one that is paused and lacks something, `gate_failed`,
    `promoted_meanwhile` where another one was promoted since this was asked; TryLater (`generation_behind`) where
    waiting was in vain.
    """
    with backend.database.read() as connection:
        generation = generations.get_generation(connection, store, public_id)
        _require_promotable(generation)
        live = generations.live_generation(connection, store.id)
        said = None if gate is None else gate(connection, generation, live)
    if said is not None and not said.passed and not force:
        raise ChangeRequest(
            f"The generation {public_id} does not pass the gate. {said.message} The live one goes on answering; "
            "`force` promotes it all the same.",
            code="gate_failed",
            param="generation",
        )
    body = {"forced": force, "instead_of": live.public_id, "verdict": None if said is None else asdict(said)}
    _exchange(backend, store, generation, live, wait_seconds, "promoted", body)
    return get_generation(backend, store, public_id)


def roll_back(backend: Backend, store: Store, *, wait_seconds: float = WAIT_SECONDS) -> GenerationSummary:
    """Let the generation answer again that was live last; the one that is becomes a standby in its turn.

    Raises as `promote`, and ChangeRequest (`no_standby`) where there is none.
    """
    with backend.database.read() as connection:
        live = generations.live_generation(connection, store.id)
        standby = generations.newest_standby(connection, store.id)
    if standby is None:
        raise ChangeRequest(
            f"The vector store {store.public_id} has no standby to go back to: none was replaced, or it was retired.",
            code="no_standby",
        )
    _exchange(backend, store, standby, live, wait_seconds, "rolled_back", {"instead_of": live.public_id})
    return get_generation(backend, store, standby.public_id)


def _require_promotable(generation: Generation) -> None:
    advice = {
        "building": ("generation_not_ready", "it does not hold the whole store yet. Wait until it is ready."),
        "failed": ("generation_failed", f"{generation.error_message} Resume it, or make another one."),
        "retired": ("generation_retired", "it holds nothing any more. Make another one."),
        "live": ("generation_live", "it answers already."),
    }
    if generation.state in advice:
        code, said = advice[generation.state]
        message = f"The generation {generation.public_id} is {generation.state}: {said}"
        raise ChangeRequest(message, code=code, param="generation")


def _exchange(
    backend: Backend,
    store: Store,
    generation: Generation,
    live: Generation,
    wait_seconds: float,
    event: str,
    body: Mapping[str, Any],
) -> None:
    """Flip the two, once the first lacks nothing."""
    deadline = time.monotonic() + wait_seconds
    while (behind := _behind(backend, generation)) or not _flipped(backend, store, generation, live, event, body):
        backend.background_waiting.set()
        if time.monotonic() >= deadline:
            message = f"{_lacks(generation, behind)} could not catch up within {wait_seconds:g} s. Try again."
            raise TryLater(message, code="generation_behind", retry_after=1.0)
        time.sleep(LOOK_EVERY)


def _behind(backend: Backend, generation: Generation) -> int:
    """How many changes a generation lacks. Raises ChangeRequest where it will lack them as long as it is paused."""
    with backend.database.read() as connection:
        place = generations.require_place(connection, generation)
        now = generations.find_generation(connection, [generation.store_id], generation.public_id)
    behind = place.seq - place.through
    if behind and now is not None and now.paused:
        message = f"{_lacks(generation, behind)} is paused. Resume it, and try again."
        raise ChangeRequest(message, code="generation_paused", param="generation")
    return behind


def _lacks(generation: Generation, behind: int) -> str:
    return f"The generation {generation.public_id} lacks the last {behind or 1} changes of the vector store, and"


def _flipped(
    backend: Backend, store: Store, generation: Generation, live: Generation, event: str, body: Mapping[str, Any]
) -> bool:
    """Flip the two in one transaction, in which nothing else is written. False when something was published since."""
    with backend.database.write() as connection:
        now = generations.live_generation(connection, store.id)
        if now.id != live.id:
            raise ChangeRequest(
                f"The generation {now.public_id} was promoted meanwhile, in place of {live.public_id}. Nothing was "
                f"changed; look again before {generation.public_id} takes its place.",
                code="promoted_meanwhile",
                param="generation",
            )
        current = generations.get_generation(connection, store, generation.public_id)
        _require_promotable(current)
        if current.filled_through != stores.current_seq(connection, store.id):
            return False
        generations.make_live(connection, current, live)
        generations.note_event(connection, current, event, backend.caller.name, body)
        generations.note_event(connection, live, "replaced", backend.caller.name, {"by": current.public_id})
    return True


# ---- mirroring -------------------------------------------------------------------------------------------------------


def mirror(backend: Backend, store: Store, public_id: str, share: float) -> GenerationSummary:
    """Let a generation be asked a share of the questions that the live one answers, in [0, 1]: see `rag.mirroring`.

    Raises ChangeRequest (`generation_not_mirrored`) for one that is not, and does not become, ready or a standby.
    """
    with backend.database.write() as connection:
        generation = generations.get_generation(connection, store, public_id)
        if generation.state not in FILLED:
            raise ChangeRequest(
                f"The generation {public_id} is {generation.state}: only one that is kept up to date beside the live "
                "one is asked as well.",
                code="generation_not_mirrored",
                param="generation",
            )
        mirrored.set_share(connection, generation, share)
        generations.note_event(connection, generation, "mirrored", backend.caller.name, {"share": share})
    return get_generation(backend, store, public_id)


# ---- retiring --------------------------------------------------------------------------------------------------------


def retire(backend: Backend, store: Store, public_id: str) -> GenerationSummary:
    """Give a generation up for good: it is followed no more, and what only it used is removed in the background.

    Harmless when repeated. Raises ChangeRequest (`generation_live`) for the live one.
    """
    with backend.database.write() as connection:
        generation = generations.get_generation(connection, store, public_id)
        if generation.state == "live":
            raise ChangeRequest(
                f"The generation {public_id} answers: promote another one before it is retired.",
                code="generation_live",
                param="generation",
            )
        if generations.retire(connection, generation):
            generations.note_event(connection, generation, "retired", backend.caller.name)
    backend.background_waiting.set()
    return get_generation(backend, store, public_id)
