"""What compiling makes of a model: the same vectors, or a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rag.embedders import agreement, compiled, compiling, exporting, parse_embedder
from rag.embedders.compiled import Manifest
from rag.embedders.model_files import resolve_model
from rag.embedders.onnx_encoder import OnnxEncoder
from rag.embedders.torch_encoder import TorchEncoder
from tests.small_bert import build_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bert(tmp_path_factory.mktemp("tiny"), spread=0.2)[0]


@pytest.fixture(scope="module")
def original(tiny: Path) -> TorchEncoder:
    return TorchEncoder(resolve_model(str(tiny)), device="cpu", attention="eager")


@pytest.fixture(scope="module")
def exported(original: TorchEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "fp32.onnx"
    exporting.export(original, file)
    return file


def compile_it(model: Path, folder: Path, **fields: object) -> Manifest:
    table = {"provider": "sentence-transformers", "model": str(model), "build": "onnx-int8", **fields}
    order = compiled.order_of(parse_embedder("x", table), resolve_model(str(model)))
    return compiling.compile_model(order, model, folder)


def encoder_of(file: Path, original: TorchEncoder) -> OnnxEncoder:
    return OnnxEncoder("x", file.read_bytes(), original.facts, original.tokenizer)


def test_the_graph_is_right_at_every_length(exported: Path, original: TorchEncoder) -> None:
    """It was traced with seven tokens: nothing of that may be left in it."""
    ids = [list(np.random.default_rng(length).integers(5, 20_000, length)) for length in range(1, 65)]
    rows = encoder_of(exported, original).encode(ids, 0)
    np.testing.assert_allclose(rows, original.encode(ids, 0), atol=1e-5, rtol=0)


def test_evening_out_the_ranges_brings_it_nearer_to_the_original(
    exported: Path, original: TorchEncoder, tmp_path: Path
) -> None:
    samples, smoothed, file = agreement.sample(original), tmp_path / "smoothed.onnx", tmp_path / "int8.onnx"
    exporting.smooth(exported, smoothed, samples.ids[: compiling.ROUNDING_SAMPLES])
    distances = []
    for graph in (smoothed, exported):
        exporting.quantise(graph, file)
        distances.append(1 - agreement.measure(samples, encoder_of(file, original)).cosine_mean)
    assert distances[0] < distances[1]


def test_one_of_the_products_that_lose_most_is_left_whole_where_that_helps(
    exported: Path, original: TorchEncoder, tmp_path: Path
) -> None:
    import onnx

    samples, smoothed = agreement.sample(original), tmp_path / "smoothed.onnx"
    losing = exporting.smooth(exported, smoothed, samples.ids[: compiling.ROUNDING_SAMPLES])
    products = {node.name for node in onnx.load(str(exported)).graph.node if node.op_type == "MatMul"}
    assert len(losing) == len(set(losing)) == 12  # two layers of six each
    assert set(losing) <= products
    exporting.quantise(smoothed, tmp_path / "all.onnx")
    everything = agreement.measure(samples, encoder_of(tmp_path / "all.onnx", original))
    chosen = compiling._round(exported, tmp_path / "int8.onnx", original, samples)
    assert chosen.cosine_mean > everything.cosine_mean
    left = [node.op_type for node in onnx.load(str(tmp_path / "int8.onnx")).graph.node].count("MatMul")
    assert left - [node.op_type for node in onnx.load(str(tmp_path / "all.onnx")).graph.node].count("MatMul") == 1


def test_the_manifest_says_what_it_is(tiny: Path, tmp_path: Path) -> None:
    manifest = compile_it(tiny, tmp_path)
    assert (manifest.build, manifest.why) == ("onnx-int8", "")
    assert manifest.agreement is not None
    assert manifest.agreement.reaches(agreement.FLOORS["onnx-int8"])
    assert compiled.read(tmp_path)[0] == manifest
    assert {file.name for file in tmp_path.iterdir()} == {"manifest.json", *manifest.files}


def test_a_processor_without_the_instructions_gets_whole_numbers(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "multiplies_bytes", lambda: False)
    manifest = compile_it(tiny, tmp_path, build="auto")
    assert manifest.build == "onnx-fp32"
    assert "no instruction for products of bytes" in manifest.why


def test_an_accelerator_is_left_to_torch_unless_the_processor_was_asked_for(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_accelerator", lambda: "cuda")
    manifest = compile_it(tiny, tmp_path, build="auto")
    assert (manifest.build, manifest.files) == ("torch-fp32", {})
    assert "accelerator (cuda)" in manifest.why
    assert compile_it(tiny, tmp_path, build="auto", device="cpu").build.startswith("onnx-")


def other_weights(exported: Path, file: Path, _: object = ()) -> None:
    """A graph with another model's numbers."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(exported))
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim == 2:
            weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[::-1]), weight.name))
    onnx.save(model, str(file))


def no_numbers(exported: Path, file: Path, _: object = ()) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(str(exported))
    last = next(node for node in model.graph.node if "embedding" in node.output)
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Log", ["before"], ["embedding"]))
    onnx.save(model, str(file))


def cannot(exported: Path, file: Path, _: object = ()) -> None:
    raise RuntimeError("no kernel for this")


@pytest.mark.parametrize(
    ("rounding", "said"),
    [(other_weights, "too far from the original"), (no_numbers, "too far"), (cannot, "no kernel for this")],
)
def test_rounded_numbers_that_are_wrong_are_refused(
    rounding: Callable[..., None],
    said: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "quantise", rounding)
    manifest = compile_it(tiny, tmp_path)
    assert manifest.build == "onnx-fp32"
    assert said in manifest.why


def test_an_export_that_is_wrong_is_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = exporting.export

    def wrong(encoder: TorchEncoder, file: Path) -> None:
        export(encoder, file.with_suffix(".right"))
        other_weights(file.with_suffix(".right"), file)

    monkeypatch.setattr(exporting, "export", wrong)
    manifest = compile_it(tiny, tmp_path)
    assert (manifest.build, manifest.files, manifest.agreement) == ("torch-fp32", {}, None)
    assert "onnx-fp32 is too far from the original" in manifest.why


def test_a_damaged_model_is_an_error_here_too(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "damaged")
    (folder / "config.json").unlink()
    with pytest.raises(Exception, match="does not load"):
        compile_it(folder, tmp_path)
