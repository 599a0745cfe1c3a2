"""Settings: one TOML file, environment variables and flags, in that order of growing precedence.

A setting `[section] field` is `RAG_SECTION_FIELD` in the environment; one at the top of the file is
`RAG_FIELD`. `RAG_API_KEY` is short for `RAG_SERVER_API_KEY`. Tables of aliases (`[models.NAME]`, `[embedders.NAME]`,
`[rerankers.NAME]`) and of experiments stand only in the file. `Settings.origins` remembers where each value came from.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator

from indexes.errors import ChangeRequest

DEFAULT_FILE = "rag.toml"
SHORT_NAMES = {"RAG_API_KEY": "server.api_key"}
NOT_SETTINGS = {"RAG_CONFIG", "RAG_TEST_DATA", "RAG_URL"}
TABLES = ("models", "embedders", "rerankers", "experiments")
LISTS = ("allowed_hosts", "allowed_origins", "ordered")
"""Settings that a variable or a flag gives as words with commas between them."""


class Section(BaseModel):
    """A part of the settings: frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    role: Literal["all", "api", "worker"] = "all"
    """What a server does: answer requests and run jobs, or one of the two. A worker answers about its health only."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    """The operator's. Without it the server binds to loopback only, and whoever comes without a key is the operator."""
    claim_secret: SecretStr | None = None
    """What a user's claim (`X-RAG-Claim`) is signed with, 32 bytes at least; unset: no claim is taken."""
    request_seconds: float = Field(default=600.0, gt=0)
    """How long one request may take."""
    max_body_mb: int = Field(default=512, ge=1)
    """The largest request body, in MiB, checked before anything is parsed."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names beyond loopback and `host` that a request may name."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins (scheme://host:port) that may call the API from a browser."""
    mcp: bool = False
    """Serve the tools of the Model Context Protocol at /mcp."""
    open_metrics: bool = False
    """Let whoever comes from this machine read /metrics without a key."""

    @field_validator("api_key")
    @classmethod
    def _without_white_space(cls, key: SecretStr | None) -> SecretStr | None:
        """As the key of a request is read, or no request could pass. Nothing but white space is no key."""
        bare = key.get_secret_value().strip() if key else ""
        return SecretStr(bare) if bare else None

    @field_validator("claim_secret")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key and len(key.get_secret_value().encode()) < 32:
            raise ValueError("it has 32 bytes at least; `openssl rand -hex 32` makes one")
        return key


class IngestSettings(Section):
    batch_documents: int = Field(default=64, ge=1, le=512)
    """Documents that one durable workflow takes at most."""
    batch_bytes: int = Field(default=4 << 20, ge=1)
    """Bytes of originals that one workflow takes at most (a larger file goes alone)."""
    concurrent_batches: int = Field(default=2, ge=1, le=16)
    """Batches at work at once: one parses while another embeds."""
    batches_of_a_store: int | None = Field(default=None, ge=1)
    """Batches of one store at work at once, over all workers; unset: as many as there is room for."""
    parser_processes: int = Field(default=1, ge=1, le=16)
    parse_seconds: float = Field(default=55.0, gt=0)
    """Wall time that parsing one file may take."""
    parse_memory_mb: int = Field(default=2048, ge=128)
    """Memory that parsing one file may take beyond the parser itself, in MiB."""
    max_file_mb: int = Field(default=512, ge=1)
    chunk_tokens: int | None = Field(default=None, ge=16)
    """Tokens of a chunk, its heading included; unset: chosen from the embedder's limit."""
    chunk_overlap_tokens: int | None = Field(default=None, ge=0)


class ViewSettings(Section):
    memory_mb: int = Field(default=4096, ge=1)
    """Memory that open indexes may take, about, in MiB; those not asked for longest are closed beyond it."""
    lag_seconds: float = Field(default=30.0, gt=0)
    """A server with a view that has been behind the catalog for longer says that it is not ready."""


class QdrantSettings(Section):
    """Qdrant, where `vector_index` and `keyword_index` are qdrant. What shapes a collection makes another collection
    when it is changed: see `rag reindex`."""

    url: str | None = None
    """Of a server or of a cluster's load balancer; unset: local mode in the data folder, for trying things out."""
    api_key: SecretStr | None = None
    prefix: str = "rag"
    """How the names of collections begin."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    shard_number: int = Field(default=1, ge=1)
    replication_factor: int = Field(default=1, ge=1)
    write_consistency_factor: int = Field(default=1, ge=1)
    """Replicas that must have a write before it counts; all of them, for every reader to see it at once."""
    quantisation: Literal["none", "int8", "binary"] = "none"
    on_disk: bool = False
    """Leave the full vectors on disk."""
    hnsw_m: int = Field(default=16, ge=0)
    hnsw_ef_construct: int = Field(default=100, ge=4)
    exact: bool = False
    """Compare with every vector instead of following the graph."""
    hnsw_ef: int | None = Field(default=None, ge=1)
    oversampling: float = Field(default=2.0, ge=1)
    """With quantisation, how many times the wanted hits are scored again with the full vectors."""
    ordered: tuple[str, ...] = ()
    """Attributes that filters compare by size (gt, gte, lt, lte): each gets an index in the engine."""


class RetrievalSettings(Section):
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
    fusion: Literal["scaled", "rrf"] = "scaled"
    dense_weight: float = Field(default=0.5, ge=0, le=1)
    """The dense leg's share of a fused score; the keyword leg has the rest."""
    top_k: int = Field(default=10, ge=1, le=1000)
    depth: int = Field(default=100, ge=1, le=10_000)
    """Candidates that each leg hands to fusion."""
    min_relevance: float = Field(default=0.5, ge=0, le=1)
    """The relevance below which an answer is not grounded; the default is measured (`rag.relevance`)."""
    reranker: str | None = None
    """The alias of what puts the first hits into a better order, having read them with the question."""
    rerank_depth: int = Field(default=30, ge=1, le=1000)
    """Hits that it reads."""


class ContextSettings(Section):
    candidates: int = Field(default=30, ge=1, le=1000)
    """Chunks that retrieval proposes for a context."""
    order: Literal["rank", "edges", "reverse", "document"] = "rank"
    max_passages: int = Field(default=12, ge=1)
    widen: int = Field(default=1, ge=0, le=10)
    """Neighbouring chunks, on each side, that may fill the room that is left."""
    tokens: int | None = Field(default=None, ge=1)
    """A cap on the prompt below the model's window."""


class ConversationSettings(Section):
    """How a conversation becomes one question to search for."""

    rewrite: Literal["model", "words", "off"] = "model"
    """`model` lets the language model say the last question in full. With `words`, and where the model is the
    extractive one or fails, the question before is searched along where the last one seems to need it; with `off` only
    the last one is."""
    model: str | None = None
    """The alias that rewrites; unset: the one that answers."""


class TraceSettings(Section):
    capture: bool = False
    """Keep the words too: the question, the answer and its quotes. Without it only hashes and lengths of them."""
    days: float = Field(default=14, ge=0)
    most: int = Field(default=100_000, ge=1)
    """Traces kept, at most; the oldest go first."""
    judged_days: float = Field(default=365, ge=0)
    """Days for which those with feedback are kept, whatever their number."""


class TelemetrySettings(Section):
    """Of OpenTelemetry's spans; where they go, its own `OTEL_*` variables say."""

    capture: bool = False
    """Put questions, passages and answers into them."""


class ResponseSettings(Section):
    """Responses and chat completions that were stored for their callers."""

    days: float = Field(default=30, ge=0)
    most: int = Field(default=100_000, ge=1)


class GateSettings(Section):
    """What a generation must show on one's own questions before it may go live; off unless a metric is named."""

    metric: str | None = None
    """A measure of an evaluation, such as nDCG@10."""
    margin: float = Field(default=0.0, allow_inf_nan=False)
    """What the whole 95 % interval of the difference to the live generation must reach: 0 allows no loss that the
    questions could show, above 0 wants so much of a gain, below 0 allows so much of a loss."""
    minimum_n: int = Field(default=50, ge=2)
    """Questions that the comparison must stand on."""
    question_set: str | None = None
    """By name (its newest version), name@version or id."""


class Settings(Section):
    """Everything that can be configured, with its defaults."""

    data: Path = Path("rag-data")
    """The folder of the views, and of the catalog and the blobs unless these lie elsewhere."""
    catalog: SecretStr | None = None
    """The catalog's URL, sqlite:///path or postgresql://…; unset: SQLite in the data folder."""
    blobs: SecretStr | None = None
    """The URL of the originals and parsed texts, such as s3://bucket/prefix; unset: in the data folder."""
    tenant: str = "default"
    embedder: str = "default"
    """The embedder of new stores, by alias."""
    model: str = "extractive"
    """The language model used unless a request names one, by alias."""
    vector_index: str = "faiss"
    keyword_index: str = "tantivy"
    prompts: Path | None = None
    """A folder of prompt templates of one's own, looked into before the packaged ones."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    server: ServerSettings = ServerSettings()
    ingest: IngestSettings = IngestSettings()
    views: ViewSettings = ViewSettings()
    qdrant: QdrantSettings = QdrantSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    context: ContextSettings = ContextSettings()
    conversation: ConversationSettings = ConversationSettings()
    traces: TraceSettings = TraceSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    responses: ResponseSettings = ResponseSettings()
    gate: GateSettings = GateSettings()
    models: dict[str, dict[str, Any]] = {}
    embedders: dict[str, dict[str, Any]] = {}
    rerankers: dict[str, dict[str, Any]] = {}
    experiments: dict[str, dict[str, Any]] = {}

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value that is not a default came from, by dotted name."""
        return self._origins


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings.

    `file` is the TOML file (else `RAG_CONFIG`, else `rag.toml` here if there is one); `flags` maps dotted names
    (`server.port`) to values, None meaning not given. Raises ChangeRequest naming the setting and its origin.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = _config_file(file, environment)
    if path is not None:
        _merge_file(path, values, origins)
    for name, (variable, text) in _from_environment(environment).items():
        _put(values, name, text)
        origins[name] = f"environment variable {variable}"
    for name, value in (flags or {}).items():
        if value is not None:
            _put(values, name, value)
            origins[name] = "flag"
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, origins) from error
    settings._origins.update(origins)
    return settings


def secret(value: SecretStr | None) -> str | None:
    """What a setting that may hold a secret says."""
    return None if value is None else value.get_secret_value()


def settings_names() -> list[str]:
    """Every setting by its dotted name, tables of aliases left out."""
    names: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in TABLES:
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names += [f"{name}.{inner}" for inner in kind.model_fields]
        else:
            names.append(name)
    return names


def variable_of(name: str) -> str:
    """The environment variable of a setting: `server.port` is `RAG_SERVER_PORT`."""
    return "RAG_" + name.replace(".", "_").upper()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables named as settings are that stand for none, so that a slip of the pen can be told."""
    known = {variable_of(name) for name in settings_names()} | SHORT_NAMES.keys() | NOT_SETTINGS
    return sorted(name for name in environment if name.startswith("RAG_") and name not in known)


def _config_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = file or (Path(environment["RAG_CONFIG"]) if environment.get("RAG_CONFIG") else None)
    if named is not None:
        if named.is_dir():
            raise ChangeRequest(f"{named} is a folder. Name the settings file itself.", code="no_settings")
        if not named.is_file():
            raise ChangeRequest(f"The settings file {named} does not exist. Name one that does.", code="no_settings")
        return named
    here = Path(DEFAULT_FILE)
    return here if here.is_file() else None


def _merge_file(path: Path, values: dict[str, Any], origins: dict[str, str]) -> None:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ChangeRequest(
            f"The settings file {path} cannot be read: {error.strerror}. Let this user read it, or name another.",
            code="no_settings",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ChangeRequest(f"The settings file {path} is not valid TOML: {error}.", code="bad_settings") from error
    for name, value in read.items():
        values[name] = value
        if isinstance(value, dict) and name not in TABLES:
            origins.update({f"{name}.{inner}": str(path) for inner in value})
        else:
            origins[name] = str(path)


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    known = {variable_of(name): name for name in settings_names()} | SHORT_NAMES
    return {known[v]: (v, text) for v, text in environment.items() if v in known and text != ""}


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    section, _, field = name.rpartition(".")
    if section:
        inner = dict(values.get(section) or {})
        inner[field] = value.split(",") if isinstance(value, str) and field in LISTS else value
        values[section] = inner
    else:
        values[field] = value


def _near(name: str) -> list[str]:
    """Settings that are spelled much like this one, or whose last word is."""
    known = settings_names()
    near = get_close_matches(name, known)
    last = name.rpartition(".")[2]
    fields = get_close_matches(last, {other.rpartition(".")[2] for other in known})
    return near + [other for other in known if other.rpartition(".")[2] in fields and other not in near]


def _explain(error: ValidationError, origins: Mapping[str, str]) -> ChangeRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    origin = origins.get(name, "settings")
    if first["type"] == "extra_forbidden":
        near = _near(name)
        advice = f"Did you mean {' or '.join(near)}?" if near else "`rag doctor` lists those that there are."
        return ChangeRequest(f"There is no setting {name} ({origin}). {advice}", code="bad_settings", param=name)
    return ChangeRequest(f"The setting {name} ({origin}) is wrong: {first['msg']}.", code="bad_settings", param=name)
