"""An installation whose jobs are run step by step, by the test itself: nothing happens that it does not say."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import sqlalchemy as sa

from ingest import intake
from ingest.backfill import Backfill
from ingest.loaders.text import load, load_parts
from ingest.pipeline import Pipeline
from rag import generations
from rag.backend import Backend
from rag.catalog import batches, documents, schema
from rag.catalog.records import Document, Generation, Store
from rag.context import Scalar
from rag.generations import GenerationSummary
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings
from tests.backends import add_text, open_backend


class PlainParser:
    """Takes a file as it is: what is tried here is not the parsing, which takes long to start."""

    def parse_all(self, files: Sequence[tuple[Path, str]]) -> list[Any]:
        return [load(path, filename) for path, filename in files]

    @contextmanager
    def parts(self, path: Path, filename: str) -> Iterator[Any]:
        yield Parts(path)


class Parts:
    """A text in small parts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        return load_parts(self._path, 2_000)


class ByHand:
    """One store, a pipeline and a filler that are moved by calls."""

    def __init__(self, backend: Backend, store: Store) -> None:
        self.backend = backend
        self.store = store
        self.pipeline = Pipeline(backend, PlainParser())  # type: ignore[arg-type]
        self.begin_anew()

    def begin_anew(self) -> None:
        """As a new process after the death of the one before."""
        with self.backend.database.write() as connection:
            batches.bury(connection, silent_seconds=0)
            self.worker = batches.join(connection, "by hand")
        self.filler = Backfill(self.backend, lambda: self.worker, lambda: self.pipeline.embeds, Event())

    def claim(self, source: str, text: str, attributes: Mapping[str, Scalar] | None = None) -> str:
        """Put a document and claim it; the batch that it is in."""
        add_text(self.backend, self.store, source, text, attributes)
        return self.claimed()

    def claimed(self) -> str:
        """Claim what waits; the batch that it is in."""
        name = secrets.token_hex(8)
        with self.backend.database.write() as connection:
            assert batches.claim(connection, self.worker, name, 64, 1 << 20)
        return name

    def put(self, source: str, text: str, attributes: Mapping[str, Scalar] | None = None) -> None:
        """Put a document and ingest it."""
        self.run(self.claim(source, text, attributes))

    def run(self, batch: str) -> None:
        """All steps of a batch, as the runner takes them."""
        self.pipeline.prepare(batch)
        self.pipeline.publish(batch, self.pipeline.index(batch, self.pipeline.embed(batch)))

    def document(self, source: str) -> Document | None:
        """The document of this source, if there is one."""
        with self.backend.database.read() as connection:
            return documents.find_document(connection, self.store.id, source)

    def delete(self, source: str) -> None:
        """Take a document out."""
        document = self.document(source)
        assert document is not None
        intake.delete_documents(self.backend, [document])

    def candidate(self, **given: Any) -> Generation:
        """A new generation, not filled yet."""
        return intake.create_generation(self.backend, self.store, **given).generation

    def fill(self, until: Callable[[], bool] = lambda: False) -> int:
        """Fill until nothing is lacking, or something holds; how many steps that took."""
        steps = 0
        while not until() and self.filler.step():
            steps += 1
        return steps

    def empty(self) -> None:
        """Empty whatever was retired."""
        while self.filler.empty_step():
            pass

    def ready(self, **given: Any) -> Generation:
        """A new generation that is filled."""
        made = self.candidate(**given)
        self.fill()
        return self.now(made)

    def now(self, generation: Generation) -> Generation:
        """A generation as it is now."""
        return self.told(generation).generation

    def told(self, generation: Generation) -> GenerationSummary:
        """All that is told of it."""
        return generations.get_generation(self.backend, self.store, generation.public_id)

    def promote(self, generation: Generation, **given: Any) -> Generation:
        """Let it answer."""
        return generations.promote(self.backend, self.store, generation.public_id, **given).generation

    def live(self) -> Generation:
        """What answers."""
        return self.backend.live_generation(self.store)

    def found(self, question: str, **options: Any) -> dict[str, float | None]:
        """The dense score of each text that is found, best first."""
        candidates = retrieve(self.backend, [self.store], question, SearchOptions(**options)).candidates
        return {candidate.text: candidate.dense for candidate in candidates}

    def lacking(self, generation: Generation) -> list[int]:
        """The visible versions that a generation lacks chunks of, or their vectors: by the tables themselves."""
        chunks, vectors, versions = schema.chunks.c, schema.vectors.c, schema.versions.c
        held = sa.select(vectors.space_id).where(
            vectors.space_id == generation.space_id, vectors.embedding_key == chunks.embedding_key
        )
        mine = sa.select(chunks.id).where(
            chunks.version_id == versions.id, chunks.chunk_set_id == generation.chunk_set_id
        )
        bare = sa.or_(~mine.exists(), mine.where(~held.exists()).exists())
        query = sa.select(versions.id).where(versions.store_id == self.store.id, schema.ANSWERS, bare)
        with self.backend.database.read() as connection:
            return list(connection.execute(query).scalars())


@contextmanager
def by_hand(settings: Settings, *, embedder: str = "toy-256", **given: Any) -> Iterator[ByHand]:
    """An installation with one empty store, `s`."""
    with open_backend(settings, jobs=False) as backend:
        yield ByHand(backend, intake.create_store(backend, "s", embedder=embedder, **given))
