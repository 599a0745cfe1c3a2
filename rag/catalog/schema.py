"""The catalog's tables: the only truth about what is stored.

Numbers that tell the order of changes (`published_seq`, `retired_seq`, `changed_seq`) are taken from the store's
counter row inside the transaction that makes the change, so they are in commit order. Together they are the change
log that views follow: a document version is visible while it is published and not retired.

States of a document:

    queued -> parsing -> splitting -> embedding -> completed
       any of the first four -> failed | cancelled
       failed | cancelled -> queued (retry)

`attempt` is the fencing token: whoever retries, cancels, replaces or isolates a document takes the next number,
and work that carries an older one is refused when it tries to change anything.
"""

from __future__ import annotations

import sqlalchemy as sa

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMES)

ACTIVE_STATES = ("queued", "parsing", "splitting", "embedding")
TERMINAL_STATES = ("completed", "failed", "cancelled")

# Ids are never reused: AUTOINCREMENT on SQLite, sequences elsewhere.
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Json = sa.JSON(none_as_null=True)


def _id() -> sa.Column[int]:
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(name, metadata, *items, sqlite_autoincrement=True)


installation = _table(
    "installation",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("incarnation", sa.String(32), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("move", Json),
    sa.Column("blobs", sa.Text),
)
"""One row. `incarnation` changes after a restore or a move, so that no view from before is trusted. `move` is the mark
of one (`rag.catalog.moves`), and `blobs` the place that it took the blobs to."""

spaces = _table(
    "spaces",
    _id(),
    sa.Column("fingerprint", sa.String(32), nullable=False, unique=True),
    sa.Column("definition", Json, nullable=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("calibration", Json),
)

encoder_builds = _table(
    "encoder_builds",
    _id(),
    sa.Column("space_id", Id, sa.ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("agreement", Json),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("space_id", "build"),
)
"""How a space's vectors were ever computed here, and how far each build was found to agree with the original."""

stores = _table(
    "stores",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("chunking", Json, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pruned_through", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("last_active_at", sa.BigInteger, nullable=False),
    sa.Column("expires_after_days", sa.Integer),
    sa.Index(None, "tenant", "created_at"),
)
"""`seq` is the counter row of the change log; `pruned_through` says from where on it is complete. A store that was last
active `expires_after_days` ago has expired, for good: nothing makes it active again."""

chunk_sets = _table(
    "chunk_sets",
    _id(),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("settings", Json, nullable=False),
    sa.Column("tokenizer", sa.Text),
    sa.Column("token_limit", sa.Integer),
    sa.UniqueConstraint("store_id", "fingerprint"),
)
"""One way of splitting a store's documents. `tokenizer` (its name) counts the tokens of a chunk, `token_limit` at most;
null is those of the embedder of the only generation that has used the set."""

generations = _table(
    "generations",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, server_default=""),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("space_id", Id, sa.ForeignKey("spaces.id"), nullable=False),
    sa.Column("chunk_set_id", Id, sa.ForeignKey("chunk_sets.id"), nullable=False),
    sa.Column("embedder", sa.Text, nullable=False),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("vector_index", sa.Text, nullable=False),
    sa.Column("keyword_index", sa.Text, nullable=False),
    sa.Column("settings", Json, nullable=False, server_default="{}"),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("filled_through", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("filled_within", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("characters_per_second", sa.Double),
    sa.Column("worker_id", Id),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("emptied", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("mirror_share", sa.Double, nullable=False, server_default="0"),
    sa.CheckConstraint("state IN ('building','ready','live','standby','retired','failed')", name="state"),
    sa.Index("uq_generations_public_id", "public_id", unique=True),
    sa.Index(None, "store_id"),
    sa.Index(None, "worker_id"),
    sa.Index(
        "uq_generations_live",
        "store_id",
        unique=True,
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    ),
)
"""One embedding space, one chunk set and one pair of indexes over a store; exactly one is live.

    building -> ready -> live -> standby -> live
       building | ready | standby -> failed -> building
       any but live -> retired

Every version that is visible at the number `filled_through` of the store's change log has its chunks in the chunk set
and their vectors in the space, and, with an engine of its own, its points; and so have those published at the next
number whose ids are up to `filled_within`. The live one is filled through all there is, whatever stands here.
`worker_id` is who fills it now, `characters_per_second` how fast that went last; `changed_at` is when it came into its
state; `settings` are its own for retrieval; `emptied` once what nothing else uses of a retired one is gone. While it is
ready or a standby, it is asked a `mirror_share` of the questions that the live one answers, too."""

mirrored_questions = _table(
    "mirrored_questions",
    _id(),
    sa.Column("generation_id", Id, sa.ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    sa.Column("live_id", Id, nullable=False),
    sa.Column("overlap", sa.Double),
    sa.Column("live_ms", sa.Double, nullable=False),
    sa.Column("mirrored_ms", sa.Double),
    sa.Column("error", sa.String(64)),
    sa.Index(None, "generation_id"),
)
"""What a generation made of questions that the live one (`live_id`) answered: see `rag.catalog.mirrored`."""

generation_events = _table(
    "generation_events",
    _id(),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("generation_id", Id, nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("body", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index(None, "store_id"),
)
"""What was done to a generation, by whom (`Caller.name`, empty for what happened by itself), and what it stood on."""

files = _table(
    "files",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.String(64), nullable=False),
    sa.Column("owned", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("uploader", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Index(None, "tenant", "created_at"),
    sa.Index(None, "blob"),
    sa.Index(None, "expires_at"),
)
"""Uploaded originals. `blob` is the SHA-256 of the bytes and the key in the blob store. An `owned`
file came with a document and goes when no document stands on it any more. `uploader` is `Caller.name`. From
`expires_at` on it is not there."""

documents = _table(
    "documents",
    _id(),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("file_id", Id, sa.ForeignKey("files.id"), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("attributes", Json, nullable=False),
    sa.Column("next_attributes", Json),
    sa.Column("permissions", Json, nullable=False, server_default="[]"),
    sa.Column("next_permissions", Json),
    sa.Column("chunking", Json),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("alone", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("batch", sa.String(32)),
    sa.Column("chunks_total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("chunks_done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("embedded", sa.Integer, nullable=False, server_default="0"),
    sa.Column("embedded_tokens", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.CheckConstraint(
        "state IN ('queued','parsing','splitting','embedding','completed','failed','cancelled')", name="state"
    ),
    sa.CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_says_why"),
    sa.UniqueConstraint("store_id", "source"),
    sa.Index(None, "store_id", "state"),
    sa.Index(None, "state", "batch"),
    sa.Index(None, "batch"),
    sa.Index(None, "file_id"),
)
"""A file in a store. `source` names it within the store (its path under a synced folder, else its file id); `alone`
keeps a document that was in a batch which died away from others; `embedded` counts vectors computed for it.
`file_id` is the newest upload; until that is published, the version that answers may stand on another one. `attributes`
are those of what answers, `next_attributes` take their place when the newest upload is published; `permissions` (tags,
none for a document that is there for everybody) and `next_permissions` likewise. `chunking` is the way of splitting
that was asked for this document; null is the store's own."""

file_batches = _table(
    "file_batches",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("cancelled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index(None, "store_id"),
)
"""Files that a caller put into a store together, to be asked after together."""

file_batch_documents = _table(
    "file_batch_documents",
    sa.Column("file_batch_id", Id, sa.ForeignKey("file_batches.id", ondelete="CASCADE"), nullable=False),
    sa.Column("document_id", Id, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
    sa.PrimaryKeyConstraint("file_batch_id", "document_id"),
    sa.Index(None, "document_id"),
)
"""What became of a file batch: the states of its documents. One that is taken out of the store leaves it."""

folders = _table(
    "folders",
    _id(),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.UniqueConstraint("store_id", "prefix"),
)
"""Where the documents of a store below a prefix came from: the folder that was synced last, its absolute path on the
machine of that name. Its only use is to notice another folder of the same name."""

keys = _table(
    "keys",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("prefix", sa.String(16), nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("stores", Json),
    sa.Column("permissions", Json, nullable=False),
    sa.Column("may_delegate", sa.Boolean, nullable=False),
    sa.Column("limits", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Index(None, "tenant"),
)
"""API keys. `hash` is the SHA-256 of the secret, which is random and never stored; `prefix` its first characters.
`stores` are the numbers of the stores that it is good for, null for all of the tenant; a number outlives its store, so
that a list never becomes empty by a deletion. A key is never deleted, only revoked."""

workers = _table(
    "workers",
    _id(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("beat_at", sa.Double, nullable=False),
)
"""Processes that run jobs; `beat_at` is when each was last heard of, in seconds since 1970 by the database's clock."""

batches = _table(
    "batches",
    _id(),
    sa.Column("name", sa.String(32), nullable=False, unique=True),
    sa.Column("worker_id", Id),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Index(None, "worker_id"),
)
"""Documents that one worker has claimed together (`documents.batch` is the name); without a worker when that one left
or died. `crashes` counts the workers that died of it, or at least beside it."""

index_tasks = _table(
    "index_tasks",
    _id(),
    sa.Column("space_id", Id, nullable=False),
    sa.Column("store_id", Id, nullable=False),
    sa.Column("document_id", Id),
)
"""What is still to be told to an engine of its own: a document's present attributes, or, without a document, that the
store is gone. Written with the change itself and removed once the engine has it."""

versions = _table(
    "versions",
    _id(),
    sa.Column("document_id", Id, nullable=False),
    sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False),
    sa.Column("file_id", Id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("text_blob", sa.String(64), nullable=False),
    sa.Column("characters", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("published_seq", sa.BigInteger),
    sa.Column("changed_seq", sa.BigInteger),
    sa.Column("retired_seq", sa.BigInteger),
    sa.Column("purged", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("document_id", "attempt"),
    sa.Index(None, "purged", "retired_seq"),
    sa.Index(None, "file_id"),
    sa.Index(None, "store_id", "published_seq"),
    sa.Index(None, "store_id", "changed_seq"),
    sa.Index(None, "store_id", "retired_seq"),
    sa.Index(None, "text_blob"),
)
"""The parsed text of a document at one attempt; it outlives its document as a mark in the change
log. `purged` once its chunks, and the vectors and text that nothing else uses, are gone."""

ANSWERS = sa.and_(versions.c.published_seq.is_not(None), versions.c.retired_seq.is_(None))
"""Of versions, those that answer."""

chunks = _table(
    "chunks",
    _id(),
    sa.Column("version_id", Id, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("chunk_set_id", Id, nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False),
    sa.Column("page", sa.Integer),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("heading_path", Json, nullable=False),
    sa.Column("header", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("embedding_key", sa.LargeBinary(16), nullable=False),
    sa.UniqueConstraint("version_id", "chunk_set_id", "ordinal"),
    sa.Index(None, "embedding_key"),
)
"""`embedding_key` is the head of the SHA-256 of the text that is embedded (header and chunk)."""

vectors = _table(
    "vectors",
    sa.Column("space_id", Id, sa.ForeignKey("spaces.id"), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("embedding_key", sa.LargeBinary(16), nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("space_id", "tenant", "embedding_key"),
)
"""Little-endian float32, `dimension` of them, unit length; one per text, space and tenant."""


def _answered(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    """A table of what was answered, with whom it was answered to: see `rag.catalog.answered`."""
    return _table(
        name,
        _id(),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("permissions", sa.Text),
        sa.Column("stores", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        *items,
        sa.Index(None, "created_at"),
    )


responses = _answered(
    "responses",
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("previous_id", Id),
    sa.Column("input", Json, nullable=False),
    sa.Column("body", Json, nullable=False),
)
"""Answers that were stored, as they were sent, with what they answer; `previous_id` is the one whose conversation they
go on with. `kind` is `response` or `chat.completion`."""

traces = _answered("traces", sa.Column("body", Json, nullable=False))
"""How answers came about."""


def _documents_of(answers: sa.Table) -> sa.Table:
    """Which documents' words stand in what was answered."""
    return sa.Table(
        f"{answers.name}_documents",
        metadata,
        sa.Column("answer_id", Id, sa.ForeignKey(answers.c.id, ondelete="CASCADE"), nullable=False),
        sa.Column("document_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("answer_id", "document_id"),
        sa.Index(None, "document_id"),
    )


responses_documents, traces_documents = _documents_of(responses), _documents_of(traces)

ab_tests = _table(
    "ab_tests",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("arms", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Index(None, "tenant"),
)
"""Prompts and models that are compared on live users, from `created_at` until `ended_at`: see `rag.ab_tests`."""

trace_arms = _table(
    "trace_arms",
    sa.Column("trace_id", Id, sa.ForeignKey("traces.id", ondelete="CASCADE"), nullable=False),
    sa.Column("ab_test_id", Id, sa.ForeignKey("ab_tests.id", ondelete="CASCADE"), nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("trace_id", "ab_test_id"),
    sa.Index(None, "ab_test_id"),
)
"""Which arm of an A/B test an answer came from."""

feedback = _table(
    "feedback",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("trace_id", Id, sa.ForeignKey("traces.id", ondelete="CASCADE"), nullable=False),
    sa.Column("idempotency_key", sa.String(256)),
    sa.Column("body", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("trace_id", "idempotency_key"),
)
"""What was thought of the answer of a trace."""

question_sets = _table(
    "question_sets",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("dev_share", sa.Double, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
    sa.UniqueConstraint("tenant", "name", "version"),
)
"""Versions of question sets. None is ever changed; of a deleted one the row stays, so that its number is not given
again. `dev_share` is what its splits were made with, `size` its number of questions."""

questions = _table(
    "questions",
    _id(),
    sa.Column("question_set_id", Id, sa.ForeignKey("question_sets.id", ondelete="CASCADE"), nullable=False),
    sa.Column("split", sa.String(8), nullable=False),
    sa.Column("line", sa.Text, nullable=False),
    sa.CheckConstraint("split IN ('dev','test')", name="split"),
    sa.Index(None, "question_set_id", "split"),
)
"""`line` is the question as `rag.evaluation.questions` reads and writes it."""

evaluations = _table(
    "evaluations",
    _id(),
    sa.Column("public_id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("stores", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("worker_id", Id),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("request", Json, nullable=False),
    sa.Column("result", Json),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.CheckConstraint("state IN ('queued','running','completed','failed')", name="state"),
    sa.CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_says_why"),
    sa.Index(None, "tenant"),
    sa.Index(None, "state"),
)
"""Comparisons of arms over a question set, and the queue of those to be made:

    queued -> running -> completed | failed

A running one is its worker's; when that one is no longer among `workers`, whoever comes takes it over, and `crashes` is
counted up. `stores` are the
numbers of the stores that it stands on, as in `rag.catalog.answered`. `done` of `total` counts questions."""


def _watched(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    """A table of what is watched of a store."""
    store = sa.Column("store_id", Id, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False)
    return _table(name, _id(), store, *items)


query_vectors = _watched(
    "query_vectors",
    sa.Column("space_id", Id, sa.ForeignKey("spaces.id"), nullable=False),
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("rank", sa.Double, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Index(None, "store_id", "day"),
)
"""A sample of the vectors of questions, those with the smallest `rank` of a store, space and day (since 1970, UTC).
`rank` is drawn at random from [0, 1), so that it does not matter who adds what in which order. No words."""

canaries = _watched(
    "canaries",
    sa.Column("question_set_id", Id, sa.ForeignKey("question_sets.id"), nullable=False),
    sa.Column("hits", Json, nullable=False),
    sa.Column("frozen_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("store_id"),
)
"""What the questions of a set found when they were frozen: by the id of each, pairs of a document's number and its
relevance, best first."""

drift_days = _watched(
    "drift_days",
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("worker_id", Id),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("body", Json),
    sa.UniqueConstraint("store_id", "day"),
)
"""What was found of each day; without a `body` it is its worker's, or whoever's who comes when that one is no longer
among `workers`. `crashes` counts the workers that did not bring it to an end."""
