"""A tiny set in BEIR's form, through the real pipeline with a toy embedder; what must come out is worked out here."""

import asyncio
import json
import math

import pytest

from indexes.errors import ChangeRequest
from ingest.beir import CorpusLine, as_original, read_beir, run_beir
from ingest.evaluate import rank_documents
from ingest.loaders import loader_for
from ingest.sniff import sniff
from rag.backend import Backend
from rag.retrieve import SearchOptions
from rag.settings import Settings

CORPUS = [
    ("cat/1", "Cats", "A feline purrs when it is content."),
    ("dog#2", "", "A hound barks at strangers in the night."),
    (
        "fish",
        "Fish: *cold* _blood_",
        "Trout swim upstream.\n\n    Salmon too: [1] a_b_c <b>&amp; 5 < 6.\n# not a heading of ours",
    ),
    (
        "long",
        "Granite",
        " ".join(f"Granite quarry number {n} sells granite slabs and granite dust." for n in range(400)),
    ),
    ("once", "Slabs", "One granite slab."),
    ("empty", "", ""),
]
QUERIES = {"q1": "feline purrs", "q2": "hound barks", "q3": "trout salmon", "unjudged": "granite"}
QRELS = [("q1", "cat/1", 1), ("q2", "dog#2", 1), ("q2", "cat/1", 0), ("q3", "fish", 2), ("q3", "not-there", 1)]


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "tiny"
    top.mkdir()
    write_lines(top / "corpus.jsonl", [{"_id": i, "title": t, "text": x, "extra": 1} for i, t, x in CORPUS])
    write_lines(top / "queries.jsonl", [{"_id": i, "text": x} for i, x in QUERIES.items()])
    rows = "".join(f"{q}\t{d}\t{g}\n" for q, d, g in QRELS)
    (top / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return top


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("id_", "title", "text"), [line for line in CORPUS if line[2]])
def test_the_text_of_a_line_comes_through_as_it_is_with_its_title(tmp_path, id_, title, text):
    name, data = as_original(CorpusLine(id_, title, text))
    path = tmp_path / name
    path.write_bytes(data)
    parsed = loader_for(sniff(path, name))(path, name)
    assert text in parsed.text
    assert parsed.title.replace("*", "") == title.replace("*", "")
    rest = parsed.text.replace(text, "", 1).strip()
    assert rest == (f"# {title}" if title else "")


def test_a_run_from_end_to_end(folder, tmp_path):
    told = []
    settings = Settings(data=tmp_path / "data", embedder="toy-384")
    report = run_beir(settings, read_beir(folder), progress=lambda *stage: told.append(stage))
    assert report.measured.queries == 3
    assert report.measured.per_query["RR@10"] == {"q1": 1.0, "q2": 1.0, "q3": 1.0}
    assert report.measured.per_query["R@100"] == {"q1": 1.0, "q2": 1.0, "q3": 0.5}
    ideal = 2 + 1 / math.log2(3)
    assert report.measured.means["nDCG@10"] == pytest.approx((1 + 1 + 2 / ideal) / 3)
    assert (report.ingest.documents, report.ingest.completed, dict(report.ingest.failed)) == (6, 5, {"empty": 1})
    assert report.ingest.embedded == report.ingest.chunks > 5
    assert report.ingest.embedded_tokens > 400 * 10
    assert 0 < report.query.p50_beyond_embedding <= report.query.p50 <= report.query.p95
    assert ("ingest", 6, 6) in told
    assert ("query", 3, 3) in told
    ranks_each_document_once_however_many_chunks_it_has(settings)


def ranks_each_document_once_however_many_chunks_it_has(settings):
    backend = Backend(settings)
    store = backend.find_store("tiny")
    ranked = rank_documents(backend, store, "granite", SearchOptions(mode="keyword"), 2)
    assert len(ranked) == len(set(ranked)) == 2
    everything = rank_documents(backend, store, "granite", SearchOptions(), 100)
    assert len(everything) == len(set(everything)) == 5
    asyncio.run(backend.close())


def test_a_limit_keeps_the_questions_that_can_still_be_answered(folder):
    limited = read_beir(folder, limit_documents=2)
    assert [line.id for line in limited.corpus] == ["cat/1", "dog#2"]
    assert set(limited.queries) == set(limited.qrels) == {"q1", "q2"}
    assert limited.left_out == 0


def test_judgements_of_questions_that_are_not_there_are_left_out_and_counted(folder):
    write_lines(folder / "queries.jsonl", [{"_id": "q3", "text": QUERIES["q3"]}])
    cut = read_beir(folder)
    assert (set(cut.queries), set(cut.qrels), cut.left_out) == ({"q3"}, {"q3"}, 3)


def test_the_folder_form_of_the_original(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert read_beir(folder).qrels["q3"] == {"fish": 2, "not-there": 1}


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\nnonsense\n', "line 2 is not JSON"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "repeats the id"),
        ("corpus.jsonl", '{"_id": 7, "text": "x"}\n', "no text in '_id'"),
        ("corpus.jsonl", '["a"]\n', "not a JSON object"),
        ("corpus.jsonl", "", "has 0 documents"),
        ("queries.jsonl", '{"_id": "q9", "text": "x"}\n', "0 questions"),
        ("qrels.tsv", "q1 cat/1 1\n", "between tabs"),
        ("qrels.tsv", "q1\tcat/1\t0\n", "0 questions"),
        ("qrels.tsv", None, "There is no file"),
        ("queries.jsonl", None, "There is no file"),
    ],
)
def test_a_bad_folder_is_named_with_its_fault(folder, file, text, said):
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(ChangeRequest, match=said) as caught:
        read_beir(folder)
    assert caught.value.code == "bad_dataset"
