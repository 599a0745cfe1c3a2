"""Compiles one model: the process behind `rag.embedders.compiled`.

    python -m rag.embedders.compiling MODEL_FOLDER TARGET_FOLDER < order.json

Each build is compared with the original on fixed texts before it may be used (`rag.embedders.agreement`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from rag.embedders import ORIGINAL, agreement, compiled, exporting
from rag.embedders.agreement import FLOORS, Agreement, Samples
from rag.embedders.compiled import MODEL, TOKENIZER, Manifest, Order
from rag.embedders.model_files import ResolvedModel
from rag.embedders.onnx_encoder import OnnxEncoder
from rag.embedders.torch_encoder import TorchEncoder

ROUNDING_SAMPLES = 95
"""Texts of the fixed ones that show what numbers come up: all but the long ones, which take as long as the others."""


LEFT_WHOLE_FROM = 3
"""Products of which one may be left as it is."""


class Refused(Exception):
    """A build that is not good enough; the message says why."""


def compile_model(order: Order, path: Path, folder: Path) -> Manifest:
    """Fill the folder with the best build that the order allows, and return its manifest, which is written there too.

    Raises RagError for a model that cannot be used at all.
    """
    resolved = ResolvedModel(order.model, path, "folder", order.weights_sha256)
    original = TorchEncoder(resolved, pooling=order.pooling, device="cpu", attention="eager")
    manifest = Manifest(ORIGINAL, "", None, original.facts, {})
    try:
        manifest = _best(order, original, folder, manifest)
    except Exception as error:  # noqa: BLE001 - whatever an exporter raises, the original is still there
        manifest = replace(manifest, why=f"it cannot be compiled ({_said(error)})")
    compiled.write(folder, manifest)
    return manifest


def _best(order: Order, original: TorchEncoder, folder: Path, left_as_it_is: Manifest) -> Manifest:
    if order.any_device and (device := _accelerator()):
        return replace(left_as_it_is, why=f"this machine has an accelerator ({device}), which torch uses")
    exported, rounded = folder / "fp32.onnx", folder / "int8.onnx"
    exporting.export(original, exported)
    samples = agreement.sample(original)
    measured = _required("onnx-fp32", _measured("onnx-fp32", exported, original, samples))
    build, chosen, why = "onnx-fp32", exported, _why_not_rounded(order)
    if order.wanted != "onnx-fp32" and not why:
        try:
            measured = _round(exported, rounded, original, samples)
            build, chosen = "onnx-int8", rounded
        except Exception as error:  # noqa: BLE001 - as in `compile_model`
            why = _said(error)
    chosen.replace(folder / MODEL)
    for left in folder.glob("*.onnx"):
        if left.name != MODEL:
            left.unlink()
    (folder / TOKENIZER).write_text(original.tokenizer.to_str(), encoding="utf-8")
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (MODEL, TOKENIZER)}
    return replace(left_as_it_is, build=build, why=why, agreement=measured, files=files)


def _round(exported: Path, rounded: Path, original: TorchEncoder, samples: Samples) -> Agreement:
    """Round all products but one: of those that lose most by it, the one without which the others come nearest to the
    original. In all-MiniLM-L6-v2 it is the second one of the first layer's feed-forward network; without it the
    distance is three fifths, and texts take a twentieth longer. Raises Refused."""
    smoothed, other = rounded.with_suffix(".smoothed.onnx"), rounded.with_suffix(".other.onnx")
    losing = exporting.smooth(exported, smoothed, samples.ids[:ROUNDING_SAMPLES])
    exporting.quantise(smoothed, rounded)
    best = _measured("onnx-int8", rounded, original, samples)
    for name in losing[:LEFT_WHOLE_FROM]:
        exporting.quantise(smoothed, other, [name])
        measured = _measured("onnx-int8", other, original, samples)
        if measured.cosine_mean > best.cosine_mean:
            best = measured
            other.replace(rounded)
    return _required("onnx-int8", best)


def _why_not_rounded(order: Order) -> str:
    if order.wanted == "auto" and not compiled.multiplies_bytes():
        return "this processor has no instruction for products of bytes (VNNI or the like)"
    return ""


def _measured(build: str, file: Path, original: TorchEncoder, samples: Samples) -> Agreement:
    """How far the file's vectors agree with the original's."""
    encoder = OnnxEncoder(build, file.read_bytes(), original.facts, original.tokenizer)
    try:
        return agreement.measure(samples, encoder)
    finally:
        encoder.close()


def _required(build: str, measured: Agreement) -> Agreement:
    """An agreement, if it is enough. Raises Refused."""
    if not measured.reaches(FLOORS[build]):
        raise Refused(f"{build} is too far from the original: {measured}; required are {FLOORS[build]}")
    return measured


def _accelerator() -> str | None:
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main() -> None:
    """Read the order, compile, end."""
    path, folder = map(Path, sys.argv[1:3])
    compile_model(Order(**json.load(sys.stdin)), path, folder)


if __name__ == "__main__":
    main()
