"""How fast the local embedder is beside a bare `SentenceTransformer.encode` over the same texts.

    python -m tests.benchmarks.embedding [--texts 600] [--rounds 3] [--cpu]

Both load the same weights and take turns, so that whatever else the machine does falls on both. The texts are pieces
of SciFact abstracts that fit the model, so that neither cuts anything off. On a busy machine wall time says little:
`--cpu` computes on one thread and counts that thread's own processor time instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time

from rag.embedders import EmbedderRegistry
from rag.embedders.model_files import resolve_model
from tests.data import shared_data

WORDS = 120
"""Words of a piece: about 180 tokens, as the splitter makes them."""


def pieces(count: int, limit: int, tokens) -> list[str]:
    """The first `count` pieces of the corpus that fit."""
    found: list[str] = []
    with (shared_data("scifact") / "corpus.jsonl").open() as lines:
        for line in lines:
            document = json.loads(line)
            words = f"{document['title']} {document['text']}".split()
            cut = [" ".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)]
            found += [piece for piece in cut if tokens(piece) <= limit]
            if len(found) >= count:
                break
    return found[:count]


def seconds(work, clock=time.perf_counter) -> float:
    """What one call takes on this clock."""
    started = clock()
    work()
    return clock() - started


def waits(embedder, texts: list[str]) -> list[float]:
    """Seconds that single questions take while `texts` are embedded in another thread."""
    thread = threading.Thread(target=embedder.embed_documents, args=(texts,))
    thread.start()
    times = []
    while thread.is_alive():
        times.append(seconds(lambda: embedder.embed_queries(["How do I reset the remote control?"])))
        time.sleep(0.05)
    thread.join()
    return times


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter

    import torch
    from sentence_transformers import SentenceTransformer

    if options.cpu:
        torch.set_num_threads(1)
    embedder = EmbedderRegistry({}).open("default")
    bare = SentenceTransformer(str(resolve_model("all-MiniLM-L6-v2").path), device="cpu", local_files_only=True)
    texts = pieces(options.texts, embedder.limit, embedder.tokenizer.count)
    tokens = sum(embedder.tokenizer.count(text) for text in texts)
    print(f"{len(texts)} texts, {tokens} tokens")
    embedder.embed_documents(texts[:32])
    bare.encode(texts[:32], show_progress_bar=False)
    ratios = []
    for number in range(options.rounds):
        ours = tokens / seconds(lambda: embedder.embed_documents(texts), clock)
        theirs = tokens / seconds(lambda: bare.encode(texts, show_progress_bar=False), clock)
        ratios.append(ours / theirs)
        print(f"round {number + 1}: ours {ours:,.0f} tokens/s, bare {theirs:,.0f}, ratio {ours / theirs:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")
    alone = [seconds(lambda: embedder.embed_queries(["How do I reset the remote control?"])) for _ in range(30)]
    beside = waits(embedder, texts[:200])
    print(f"a question alone: median {statistics.median(alone) * 1e3:.1f} ms")
    print(
        f"a question beside an ingestion: median {statistics.median(beside) * 1e3:.0f} ms, most {max(beside) * 1e3:.0f}"
    )


if __name__ == "__main__":
    main()
