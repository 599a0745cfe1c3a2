"""A sentence-transformers model as one ONNX graph, and that graph in rounded numbers.

The graph reads one text: token ids of shape (1, tokens) in, one row of unit length out, with the pooling and whatever
else the model's modules do inside. Nothing is ever padded, so there is no mask, a text's vector does not depend on its
neighbours, and a text of 180 tokens stays within the caches of one core.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import Unsupported
from rag.embedders.torch_encoder import TorchEncoder

if TYPE_CHECKING:
    import onnx

OPSET = 17
INPUT, OUTPUT = "input_ids", "embedding"

SMOOTHING = 0.8
"""The share of the numbers' range that moves from the activations into the weights: rounding hurts the former more,
since one step serves for a whole tensor of them. SmoothQuant: Xiao et al., 2023. From .75 to .9 it makes little
difference, and without it the distance to the original (1 - cosine) is twice as large."""


def export(encoder: TorchEncoder, file: Path) -> None:
    """Write the model as an ONNX graph in 32-bit floating point.

    Raises Unsupported for a model whose vectors depend on more than a text's tokens; whatever torch raises for what it
    cannot express.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    if not all(module.include_prompt for module in encoder.model if isinstance(module, Pooling)):
        raise Unsupported("its pooling leaves the prefix out", code="not_exportable")
    whole = _whole_model(encoder)
    example = torch.arange(3, 10)[None] % encoder.tokenizer.get_vocab_size()
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            whole,
            (example,),
            str(file),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {1: "tokens"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs a package more and took five times as long
        )


def _whole_model(encoder: TorchEncoder) -> Any:
    """All modules, from token ids to a unit row, as one module of torch's."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder.model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": ids}
            if encoder.types:
                features["token_type_ids"] = torch.zeros_like(ids)
            return torch.nn.functional.normalize(self.model(features)["sentence_embedding"], p=2, dim=1)

    return Whole().eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of every branch that it follows once for all; what comes out is compared instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- rounded to 8 bits ----------------------------------------------------------------------------------------------


def smooth(exported: Path, file: Path, samples: Sequence[Sequence[int]]) -> list[str]:
    """Write the exported graph with the ranges of its activations evened out. `samples` are token ids of texts, which
    show how large those become. Returns the names of the products with weights, the one whose activations lose most by
    rounding first."""
    import onnx

    model = onnx.load(str(exported))
    losses = _smooth(model, samples)
    onnx.save(model, str(file))
    return sorted(losses, key=lambda name: -losses[name])


def quantise(smoothed: Path, file: Path, whole: Sequence[str] = ()) -> None:
    """Write a graph with weights in 8 bits, a scale per output channel; activations are rounded as they come. The
    products named in `whole` stay as they are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(smoothed, file, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=list(whole))


def _smooth(model: onnx.ModelProto, samples: Sequence[Sequence[int]]) -> dict[str, float]:
    """Divide the inputs of products with weights by a factor per channel, and multiply the weights by it. Returns of
    each product, by name, how much its input then loses by rounding: the square of the steps in that of the values."""
    from onnx import helper, numpy_helper

    weights = {weight.name: weight for weight in model.graph.initializer}
    used = Counter(name for node in model.graph.node for name in node.input)
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and used[node.input[1]] == 1:
            readers[node.input[0]].append(node)
    ranges = _ranges(model, list(readers), samples)
    losses: dict[str, float] = {}
    for name, nodes in readers.items():
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in nodes]
        largest, squares = ranges[name]
        factors = _factors(largest, np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0))
        loss = float((largest / factors).max() ** 2 / np.mean(squares / factors**2))
        losses |= {node.name: loss for node in nodes}
        for node, matrix in zip(nodes, matrices, strict=True):
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(matrix * factors[:, None], node.input[1]))
            node.input[0] = f"{name}/smoothed"
        model.graph.initializer.append(numpy_helper.from_array(1 / factors, f"{name}/factors"))
        place = min(index for index, node in enumerate(model.graph.node) if f"{name}/smoothed" in node.input)
        product = helper.make_node("Mul", [name, f"{name}/factors"], [f"{name}/smoothed"], name=f"{name}/smoothing")
        model.graph.node.insert(place, product)
    return losses


def _factors(activations: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """By what each channel's weights are multiplied, 1 in the geometric mean; both arguments are largest magnitudes."""
    tiny = np.float32(1e-5)
    raised = np.log(np.maximum(activations, tiny)) * SMOOTHING - np.log(np.maximum(weights, tiny)) * (1 - SMOOTHING)
    factors: NDArray[np.float32] = np.exp(raised - raised.mean()).astype(np.float32)
    return factors


def _ranges(
    model: onnx.ModelProto, names: list[str], samples: Sequence[Sequence[int]]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The largest magnitude of each channel of these activations over the samples, and its mean square."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    squares: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for ids in samples:
        for name, values in zip(names, session.run(names, {INPUT: np.array([ids], dtype=np.int64)}), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            largest[name].append(np.abs(rows).max(axis=0))
            squares[name].append((rows**2).mean(axis=0))
    return {name: (np.max(largest[name], axis=0), np.mean(squares[name], axis=0)) for name in names}
