"""What a fixed average length costs BM25 where weights are stored, against the true mean of each corpus.

    python -m tests.benchmarks.average_words

Chunks of the default settings, ranked by the stored weights times the IDF; a document scores as its best chunk. Printed
per corpus: the mean of words per chunk, and nDCG@10 by the average that is assumed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from scipy.sparse import csr_array

from indexes.sparse import text_vector, word_number
from indexes.words import analyse
from ingest.document import Block, ParsedDocument
from ingest.split import ChunkSettings, embedding_text, split_document
from tests.benchmarks.relevance import lines
from tests.benchmarks.splitting import LIMIT, WordPieces
from tests.data import shared_data

AVERAGES = (25, 50, 75, 100, 150, 200, 300, 600)


def chunk_words(name: str, tokenizer: WordPieces) -> list[tuple[str, list[str]]]:
    """Document and analysed words of each chunk."""
    chunks = []
    for line in lines(name, "corpus.jsonl"):
        text = line["text"].strip() or line["title"]
        document = ParsedDocument(text, line["title"], "text/plain", (Block(0, len(text), "paragraph"),))
        for span in split_document(document, tokenizer, LIMIT, ChunkSettings()):
            chunks.append((line["_id"], analyse(embedding_text(span.header, text[span.start : span.end]))))
    return chunks


def ndcg(chunks: list[tuple[str, list[str]]], questions: dict[str, list[str]], gold, average: float) -> float:
    """Mean nDCG@10 over the questions that have an answer."""
    vectors = [text_vector(words, average) for _, words in chunks]
    column = {number: at for at, number in enumerate({number for vector in vectors for number in vector})}
    frequency = Counter(number for vector in vectors for number in vector)
    idf = {n: math.log(1 + (len(vectors) - f + 0.5) / (f + 0.5)) for n, f in frequency.items()}
    rows = np.repeat(np.arange(len(vectors)), [len(vector) for vector in vectors])
    columns = [column[number] for vector in vectors for number in vector]
    values = [weight * idf[number] for vector in vectors for number, weight in vector.items()]
    matrix = csr_array((values, (rows, columns)), shape=(len(vectors), len(column)))
    owners = np.array([owner for owner, _ in chunks])
    gains = []
    for question, words in questions.items():
        asked = np.zeros(len(column))
        asked[[column[n] for n in {word_number(word) for word in words} if n in column]] = 1
        scores = matrix @ asked
        ranked = list(dict.fromkeys(owners[np.argsort(-scores, kind="stable")[:200]].tolist()))[:10]
        found = sum(gold[question].get(owner, 0) / math.log2(at + 2) for at, owner in enumerate(ranked))
        best = sorted(gold[question].values(), reverse=True)[:10]
        gains.append(found / sum(gain / math.log2(at + 2) for at, gain in enumerate(best)))
    return float(np.mean(gains))


def main() -> None:
    tokenizer = WordPieces()
    for name in ("scifact", "cranfield"):
        chunks = chunk_words(name, tokenizer)
        gold: dict[str, dict[str, int]] = defaultdict(dict)
        for row in (shared_data(name) / "qrels.tsv").read_text().splitlines()[1:]:
            query, document, grade = row.split("\t")
            if int(grade) > 0:
                gold[query][document] = int(grade)
        questions = {q["_id"]: analyse(q["text"]) for q in lines(name, "queries.jsonl") if q["_id"] in gold}
        mean = float(np.mean([len(words) for _, words in chunks]))
        print(f"{name}: {len(chunks)} chunks of {mean:.0f} words, {len(questions)} questions")
        for average in sorted((*AVERAGES, mean)):
            mark = "  (the mean)" if average == mean else ""
            print(f"    {average:6.0f}  {ndcg(chunks, questions, gold, average):.4f}{mark}")


if __name__ == "__main__":
    main()
