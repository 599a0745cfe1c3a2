"""A compiled model, run by onnxruntime on the processor: each text on one core, as many texts at a time as cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rag.embedders.encoder import ModelFacts

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

AT_ONCE_TOKENS = 128
"""A call with so few tokens is computed where it is made, in some milliseconds: a question waits for nobody."""

AHEAD = 2
"""Texts that one call has waiting per thread: with few, calls made at the same time share the threads fairly."""


class OnnxEncoder:
    """One compiled model under the contract of `Encoder`.

    Texts are neither padded nor batched. A batch of 1,000 tokens is slower than the same texts one after the other, for
    its numbers do not fit the caches; and cores share nothing when each has a text of its own.
    """

    def __init__(
        self, build: str, model: bytes, facts: ModelFacts, tokenizer: tokenizers.Tokenizer, threads: int | None = None
    ) -> None:
        """`model` is an ONNX graph as `rag.embedders.exporting` makes it."""
        self.build = build
        self.facts = facts
        self.tokenizer = tokenizer
        self._session = open_session(model)
        (self._input,) = (node.name for node in self._session.get_inputs())
        workers = threads or cores()
        self._pool = ThreadPoolExecutor(workers, "embed")
        self._ahead = AHEAD * workers

    def encode(self, ids: Sequence[Sequence[int]], prompt_tokens: int) -> NDArray[np.float32]:  # noqa: ARG002
        """Unit rows, in order: shape (len(ids), dimension). A row is the same whatever stands beside it."""
        rows = np.empty((len(ids), self.facts.dimension), dtype=np.float32)
        if sum(map(len, ids)) <= AT_ONCE_TOKENS:
            for at, row in enumerate(ids):
                rows[at] = self._run(row)
            return rows
        waiting: deque[tuple[int, Future[NDArray[np.float32]]]] = deque()
        # The longest first, so that at the end no thread is left alone with much.
        for at in sorted(range(len(ids)), key=lambda at: -len(ids[at])):
            if len(waiting) == self._ahead:
                _settle(rows, *waiting.popleft())
            waiting.append((at, self._pool.submit(self._run, ids[at])))
        for at, future in waiting:
            _settle(rows, at, future)
        return rows

    def close(self) -> None:
        """Let go of the threads. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, ids: Sequence[int]) -> NDArray[np.float32]:
        (rows,) = self._session.run(None, {self._input: np.array([ids], dtype=np.int64)})
        row: NDArray[np.float32] = rows[0]
        return row


def _settle(rows: NDArray[np.float32], at: int, future: Future[NDArray[np.float32]]) -> None:
    rows[at] = future.result()


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session whose runs each stay on the thread that asks for them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],  # the fused operation takes six times as long as its parts
    )


def cores() -> int:
    """Cores that this process may use. `OMP_NUM_THREADS` says how many of a machine belong to a container."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said):
        return int(said)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
