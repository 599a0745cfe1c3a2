"""Compiled models: made once for a machine, in a process of its own, and kept in a cache folder.

    $RAG_CACHE/encoders/KEY/            (else ~/.cache/rag)
        manifest.json                   what it is, why, and how far it agrees with the original
        model.onnx  tokenizer.json      by the checksums in the manifest

KEY is a hash of everything that decides what comes of it: the weights, the model's configuration, the versions of what
computes. A folder is written aside and renamed into place; what does not check is made again. Nothing here imports
torch: that is for the process that compiles (`rag.embedders.compiling`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexes.disk import sync
from rag.embedders.agreement import Agreement
from rag.embedders.encoder import ModelFacts
from rag.embedders.model_files import ResolvedModel, config_sha256

if TYPE_CHECKING:
    from rag.embedders import EmbedderSpec

MANIFEST, MODEL, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
DECIDING = ("onnx", "onnxruntime", "sentence-transformers", "tokenizers", "torch", "transformers")
"""The packages whose versions decide what is made and how it computes."""
SOURCES = ("agreement.py", "compiling.py", "exporting.py", "torch_encoder.py")
"""Our own files that do: another release makes another."""

COMPILING_SECONDS = 1800.0
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Where accelerators show on Linux: a model is asked about anew when one comes or goes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be compiled, and everything that decides what comes of it."""

    model: str
    weights_sha256: str
    config_sha256: str
    pooling: str | None
    wanted: str
    """`auto`, `onnx-int8` or `onnx-fp32`."""
    any_device: bool
    """An accelerator may be used where there is one, which is then torch's."""
    machine: str
    versions: Mapping[str, str]
    sources_sha256: str

    @property
    def key(self) -> str:
        """32 hexadecimal digits over every field."""
        return _digest(asdict(self))[:32]


@dataclass(frozen=True)
class Manifest:
    """What came of an order."""

    build: str
    """`onnx-int8`, `onnx-fp32`, or `torch-fp32` where the model is better left as it is."""
    why: str
    """Why it is not the build that was wanted; "" where it is."""
    agreement: Agreement | None
    """With the original, None for the original itself."""
    facts: ModelFacts
    files: Mapping[str, str]
    """Name and SHA-256."""


class Damaged(Exception):
    """A compiled folder that is not what was written."""


def order_of(spec: EmbedderSpec, resolved: ResolvedModel) -> Order:
    """What this embedder's settings ask for, of this model on this machine."""
    return Order(
        model=resolved.name,
        weights_sha256=resolved.weights_sha256,
        config_sha256=config_sha256(resolved.path),
        pooling=spec.pooling,
        wanted=spec.build,
        any_device=spec.device is None,
        machine=_machine(),
        versions={name: _version(name) for name in DECIDING},
        sources_sha256=_sources_sha256(),
    )


def cache_folder() -> Path:
    """Where compiled models are kept: `RAG_CACHE`, else `rag` in the user's own cache."""
    if chosen := os.environ.get("RAG_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rag"


def obtain(order: Order, path: Path) -> tuple[Manifest, Mapping[str, bytes]] | None:
    """What came of the order and its files, compiled now where that was not done yet: half a minute, once.

    `path` is the model's folder. None where it cannot be compiled now; the log says why.
    """
    folder = cache_folder() / "encoders" / order.key
    try:
        with suppress(FileNotFoundError, Damaged):  # the process that mends it says so
            return read(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            return _read_or_compile(order, path, folder)
    except OSError as error:
        log.warning("The model %s is not compiled: the cache %s cannot be used (%s).", order.model, folder, error)
        return None


def peek(order: Order) -> Manifest | None:
    """What came of the order, where it was compiled already."""
    try:
        return read(cache_folder() / "encoders" / order.key)[0]
    except (OSError, Damaged):
        return None


def read(folder: Path) -> tuple[Manifest, Mapping[str, bytes]]:
    """A compiled folder's manifest and files. Raises FileNotFoundError where it is absent, else Damaged."""
    text = (folder / MANIFEST).read_bytes()
    try:
        written = json.loads(text)
        content = written["content"]
        if written["sha256"] != _digest(content):
            raise Damaged(f"{MANIFEST} has another checksum than it says")
        agreement = content["agreement"] and Agreement(**content["agreement"])
        manifest = Manifest(**{**content, "agreement": agreement, "facts": ModelFacts(**content["facts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error}") from error
    return manifest, {name: _checked(folder / name, sha256) for name, sha256 in manifest.files.items()}


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside its files and have all of them on the disk."""
    content = asdict(manifest)
    (folder / MANIFEST).write_text(json.dumps({"sha256": _digest(content), "content": content}, indent=1))
    for name in (*manifest.files, MANIFEST):
        sync(folder / name)
    sync(folder)


def _checked(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise Damaged(f"{file.name} is gone") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged(f"{file.name} has another checksum than it had")
    return content


# ---- compiling ------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process compiles the same."""
    with folder.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_or_compile(order: Order, path: Path, folder: Path) -> tuple[Manifest, Mapping[str, bytes]] | None:
    try:
        return read(folder)
    except FileNotFoundError:
        pass
    except Damaged as error:
        log.warning("The compiled model in %s is damaged (%s). It is made again.", folder, error)
    for left in folder.parent.glob(f".{order.key}-*"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    aside = Path(tempfile.mkdtemp(prefix=f".{order.key}-", dir=folder.parent))
    try:
        if not _compile(order, path, aside):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return read(folder)


def _compile(order: Order, path: Path, aside: Path) -> bool:
    """Let another process compile, so that torch leaves with it."""
    log.info("Compiling the model %s, once for this machine: about half a minute.", order.model)
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "rag.embedders.compiling", str(path), str(aside)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asdict(order)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMPILING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        log.warning("The model %s is not compiled: that took more than %g s.", order.model, COMPILING_SECONDS)
        return False
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        log.warning("The model %s is not compiled: %s", order.model, last)
        return False
    log.info("The model %s is compiled (%.0f s).", order.model, time.monotonic() - began)
    return True


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _sources_sha256() -> str:
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in SOURCES)).hexdigest()


# ---- the machine ----------------------------------------------------------------------------------------------------


def _machine() -> str:
    described = [platform.system(), platform.machine(), "bytes" if multiplies_bytes() else ""]
    if shown := [name for name in ACCELERATORS if Path(name).exists()]:
        visible = (os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"))
        described += [*shown, *visible]
    return " ".join(described)


@cache
def multiplies_bytes() -> bool:
    """Whether the processor adds up products of bytes in one instruction (VNNI, or the dot products of ARM).

    Without one, rounded numbers are no faster, and some kernels lose sums that do not fit 16 bits.
    """
    if platform.machine() in ("arm64", "aarch64") and platform.system() == "Darwin":
        return True
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint(told.split())
