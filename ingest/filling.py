"""What a generation lacks of some versions, made: chunks from the stored text, vectors, points of a remote engine.

Everything is named by its content, so that a repetition, by whomever, makes nothing twice and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.engine import Connection

from indexes.errors import NotThere
from ingest.document import Block, ParsedDocument
from ingest.intake import document_settings
from ingest.split import ChunkSettings, ChunkSpan, embedding_text, split_document
from rag.backend import Backend
from rag.blobs import read_blob
from rag.catalog import chunks, stores, vectors
from rag.catalog.chunks import NewChunk, SplitAgain
from rag.catalog.records import ChunkSet, Generation
from rag.embedders import Embedder
from rag.embedders.checking import embed_checked, require_order
from rag.texts import decode_text

EMBED_AT_ONCE = 256
"""Texts between two commits of vectors."""

WINDOW_TEXTS = 4_096
"""Texts that are in memory at once, about: those of many small documents, or of a stretch of a large one."""

Made = Mapping[int, tuple[int, int]]
"""Texts that were embedded and their tokens, by the version that wanted them."""


@dataclass(frozen=True)
class Manner:
    """How the work is done beside other work."""

    before: Callable[[], None] = lambda: None
    """Called before each text is split and each batch embedded; what it raises ends the work."""
    beside: Callable[[Connection, Made], None] = lambda _connection, _made: None
    """Called in each transaction that writes; what it raises takes that back."""
    at_once: int = EMBED_AT_ONCE
    check_order: bool = False
    """Let the first batch of several texts show that its rows are in their order."""


def split_missing(
    backend: Backend, generation: Generation, embedder: Embedder, version_ids: Sequence[int], manner: Manner
) -> None:
    """Split the stored texts of those of these versions that have no chunks in the generation's chunk set.

    Raises ChangeRequest (`invalid_chunking`) where the embedder reads too little for that.
    """
    with backend.database.read() as connection:
        chunk_set = stores.get_chunk_set(connection, generation.chunk_set_id)
        lacking = chunks.without_chunks(connection, version_ids, generation.chunk_set_id)
    for version in lacking:
        manner.before()
        try:
            data = read_blob(backend.blobs, version.text_blob)
        except NotThere:  # purged meanwhile, with its version
            continue
        new = new_chunks(backend, _parsed(version, data), embedder, chunk_set, version.chunking)
        with backend.database.write(shared=True) as connection:
            manner.beside(connection, {})
            if chunks.is_kept(connection, version.id):
                chunks.put_chunks(connection, generation.chunk_set_id, generation.tenant, {version.id: new})


def new_chunks(
    backend: Backend,
    parsed: ParsedDocument,
    embedder: Embedder,
    chunk_set: ChunkSet,
    own: Mapping[str, object] | None,
) -> list[NewChunk]:
    """A document's chunks in a chunk set; `own` is the way of splitting that was asked for this document."""
    settings = document_settings(backend, ChunkSettings(**chunk_set.settings), own, embedder)
    limit = min(embedder.limit, chunk_set.token_limit or embedder.limit)
    if limit < embedder.limit:  # what the document asks for was made to fit the embedder
        size = min(settings.max_tokens or limit, limit)
        settings = replace(settings, overlap_tokens=min(settings.overlap_tokens, size // 2))
    spans = split_document(parsed, embedder.tokenizer, limit, settings)
    return [_new_chunk(number, span, parsed.text) for number, span in enumerate(spans)]


def embed_missing(
    backend: Backend, generation: Generation, embedder: Embedder, version_ids: Sequence[int], manner: Manner
) -> bool:
    """Compute the vectors that these versions' chunks lack in the generation's space. Returns whether the embedder has
    shown that it keeps to the order of the texts.

    Raises TryLater when the embedder is out of reach, and as `embed_checked` and `require_order` do.
    """
    with backend.database.read() as connection:
        counts = chunks.count_by_version(connection, version_ids, generation.chunk_set_id)
    in_order = not manner.check_order
    for window in _windows(counts):
        with backend.database.read() as connection:
            texts = chunks.version_texts(
                connection, window.versions, generation.chunk_set_id, window.first, window.last
            )
        in_order = _embed_texts(backend, generation, embedder, texts, manner, in_order)
    return in_order


@dataclass(frozen=True)
class _Window:
    """Chunks of these versions with ordinals from `first` to `last`."""

    versions: list[int]
    first: int
    last: int


def _windows(counts: Mapping[int, int]) -> Iterator[_Window]:
    """All chunks of these versions (number to count of chunks), as many at once as there may be in memory."""
    some: list[int] = []
    size = 0
    for version, count in sorted(counts.items()):
        if count > WINDOW_TEXTS:
            for first in range(0, count, WINDOW_TEXTS):
                yield _Window([version], first, first + WINDOW_TEXTS - 1)
            continue
        if size + count > WINDOW_TEXTS:
            yield _Window(some, 0, WINDOW_TEXTS)
            some, size = [], 0
        some.append(version)
        size += count
    if some:
        yield _Window(some, 0, WINDOW_TEXTS)


def _embed_texts(
    backend: Backend,
    generation: Generation,
    embedder: Embedder,
    texts: Sequence[tuple[int, bytes, str, str, int]],
    manner: Manner,
    in_order: bool,
) -> bool:
    space, tenant = generation.space_id, generation.tenant
    with backend.database.read() as connection:
        missing = vectors.missing_keys(connection, space, tenant, [key for _, key, _, _, _ in texts])
    wanted: dict[bytes, tuple[str, int, int]] = {}
    for version_id, key, header, text, tokens in texts:
        if key in missing and key not in wanted:
            wanted[key] = embedding_text(header, text), tokens, version_id
    # Texts of like length go together, so that little is spent on padding.
    order = sorted(wanted, key=lambda key: wanted[key][1])
    for start in range(0, len(order), manner.at_once):
        manner.before()
        keys = order[start : start + manner.at_once]
        with backend.database.read() as connection:
            held = vectors.wanted_keys(connection, tenant, keys)
        keys = [key for key in keys if key in held]
        if not keys:
            continue
        batch = [wanted[key][0] for key in keys]
        rows = embed_checked(embedder, batch)
        if not in_order and len(batch) > 1:
            require_order(embedder, batch, rows)
            in_order = True
        made: dict[int, tuple[int, int]] = {}
        for key in keys:
            _, tokens, version_id = wanted[key]
            count, total = made.get(version_id, (0, 0))
            made[version_id] = count + 1, total + tokens
        with backend.database.write(shared=True) as connection:
            # A document deleted meanwhile was purged already: nothing would ever remove its vectors.
            held = vectors.wanted_keys(connection, tenant, keys)
            kept = [i for i, key in enumerate(keys) if key in held]
            vectors.put_vectors(connection, space, tenant, [keys[i] for i in kept], rows[kept])
            manner.beside(connection, made)
    return in_order


def _parsed(version: SplitAgain, data: bytes) -> ParsedDocument:
    structure, text = decode_text(data)
    blocks = tuple(Block(*block) for block in structure["blocks"])
    return ParsedDocument(text, version.title, version.media_type, blocks, structure.get("metadata", {}))


def _new_chunk(number: int, span: ChunkSpan, text: str) -> NewChunk:
    mine = text[span.start : span.end]
    return NewChunk(
        ordinal=number,
        start=span.start,
        end=span.end,
        page=span.page,
        tokens=span.tokens,
        heading_path=span.heading_path,
        header=span.header,
        text=mine,
        embedding_key=vectors.embedding_key(embedding_text(span.header, mine)),
    )
