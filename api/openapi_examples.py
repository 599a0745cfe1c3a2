"""Requests that the interface's documentation shows, by operation and by what each does. They run as they stand over
the store `manual` of `rag serve --with-manual`, where the ids of a file, a key, a trace and an evaluation, the name of
a question set and the id of a generation that is ready are replaced by those of some that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STORE = "manual"
"""A store is named by its id or by its unique name."""
FILE = "file-example"
KEY = "key_example"
TRACE = "trace_example"
GENERATION = "gen_example"
QUESTIONS = "helpdesk"
EVALUATION = "eval_example"
AB_TEST = "ab_example"
PATH_EXAMPLES: Mapping[str, str] = {
    "vector_store_id": STORE,
    "file_id": FILE,
    "key_id": KEY,
    "generation_id": GENERATION,
    "model": "extractive",
    "question_set_id": QUESTIONS,
    "evaluation_id": EVALUATION,
    "ab_test_id": AB_TEST,
}
QUESTION = "Which file formats can be ingested?"
_NOT_A_DRAFT = {
    "type": "or",
    "filters": [{"type": "eq", "key": "public", "value": True}, {"type": "gte", "key": "year", "value": 2024}],
}
_FILE_SEARCH = {"type": "file_search", "vector_store_ids": [STORE], "max_num_results": 5}

EXAMPLES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("post", "/v1/vector_stores"): {
        "empty": {"name": "notes", "metadata": {"team": "support"}},
        "unless it is there": {"name": STORE, "only_if_absent": True},
        "with files": {
            "name": "handbook",
            "file_ids": [FILE],
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 40},
            },
        },
    },
    ("post", "/v1/vector_stores/{vector_store_id}"): {"describe": {"description": "The manual of this program."}},
    ("post", "/v1/vector_stores/{vector_store_id}/search"): {
        "plain": {"query": QUESTION},
        "filtered": {"query": QUESTION, "filters": _NOT_A_DRAFT, "max_num_results": 3},
        "by words, and relevant": {"query": "DOCX", "mode": "keyword", "ranking_options": {"score_threshold": 0.2}},
    },
    ("post", "/v1/vector_stores/{vector_store_id}/files"): {
        "put": {"file_id": FILE, "attributes": {"topic": "shop", "year": 2024, "public": True}}
    },
    ("post", "/v1/vector_stores/{vector_store_id}/files/{file_id}"): {
        "replace the attributes": {"attributes": {"topic": "shop", "year": 2025}}
    },
    ("post", "/v1/vector_stores/{vector_store_id}/file_batches"): {
        "alike": {"file_ids": [FILE], "attributes": {"topic": "shop"}},
        "each its own": {"files": [{"file_id": FILE, "attributes": {"year": 2024}}]},
    },
    ("post", "/v1/vector_stores/{vector_store_id}/generations"): {
        "another embedding model": {"embedder": "toy-256"},
        "other chunks, searched by meaning alone": {
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 120, "chunk_overlap_tokens": 20},
            },
            "retrieval": {"mode": "dense"},
        },
    },
    ("post", "/v1/vector_stores/{vector_store_id}/generations/{generation_id}/promote"): {
        "once it is ready": {},
        "past the gate, waiting for what came last": {"force": True, "wait_seconds": 10},
    },
    ("post", "/v1/vector_stores/{vector_store_id}/generations/{generation_id}/mirror"): {
        "a tenth of the questions": {"share": 0.1}
    },
    ("post", "/v1/vector_stores/{vector_store_id}/rollback"): {"go back": {}},
    ("put", "/v1/vector_stores/{vector_store_id}/folders"): {
        "remember": {"prefix": "notes/", "host": "laptop", "path": "/home/ada/notes"}
    },
    ("post", "/v1/vector_stores/{vector_store_id}/context"): {
        "for a model with a small window": {"question": QUESTION, "window": 2048, "tokenizer": "o200k_base"}
    },
    ("post", "/v1/context"): {
        "a conversation": {
            "vector_store_ids": [STORE],
            "messages": [
                {"role": "user", "content": "What is a vector store?"},
                {"role": "assistant", "content": "A named corpus."},
                {"role": "user", "content": "And which file formats can go into one?"},
            ],
        }
    },
    ("post", "/v1/chat/completions"): {
        "answer": {
            "model": "extractive",
            "vector_store_ids": [STORE],
            "messages": [{"role": "user", "content": QUESTION}],
        },
        "stream": {
            "model": "extractive",
            "vector_store_ids": [STORE],
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
    ("post", "/v1/responses"): {
        "answer": {"model": "extractive", "input": QUESTION, "tools": [_FILE_SEARCH]},
        "with what was found": {
            "model": "extractive",
            "input": QUESTION,
            "tools": [_FILE_SEARCH],
            "include": ["file_search_call.results"],
        },
        "stream": {"model": "extractive", "input": QUESTION, "tools": [_FILE_SEARCH], "stream": True},
    },
    ("post", "/v1/ab_tests"): {
        "another model for a tenth of the users": {
            "name": "quotes alone",
            "arms": [{"name": "now", "share": 0.9}, {"name": "quotes", "share": 0.1, "model": "extractive"}],
        }
    },
    ("post", "/v1/feedback"): {
        "a thumb": {"trace_id": TRACE, "name": "helpful", "value": True},
        "a word": {"trace_id": TRACE, "name": "verdict", "label": "outdated", "comment": "The fee was raised."},
    },
    ("put", "/v1/vector_stores/{vector_store_id}/drift/canaries"): {
        "watch": {"question_set": QUESTIONS},
        "watch no more": {"question_set": None},
    },
    ("post", "/v1/evaluations"): {
        "two ways of searching": {
            "vector_store_id": STORE,
            "question_set": QUESTIONS,
            "arms": [{"name": "hybrid"}, {"name": "words alone", "mode": "keyword"}],
        },
        "with answers": {
            "vector_store_id": STORE,
            "question_set": QUESTIONS,
            "split": "dev",
            "measures": ["nDCG@10", "R@20"],
            "answers": True,
            "arms": [
                {"name": "few passages", "model": "extractive", "max_passages": 3},
                {"name": "many passages", "model": "extractive", "max_passages": 12},
            ],
        },
    },
    ("post", "/v1/keys"): {
        "for a bot": {"name": "helpdesk", "scopes": ["query"], "permissions": ["support"]},
    },
    ("post", "/v1/keys/{key_id}"): {"a limit": {"limits": {"requests_per_minute": 600}}},
    ("post", "/v1/embeddings"): {"two texts": {"model": "default", "input": ["a kettle", "a lamp"]}},
    ("post", "/v1/dify/retrieval"): {
        "as Dify asks": {
            "knowledge_id": STORE,
            "query": QUESTION,
            "retrieval_setting": {"top_k": 4, "score_threshold": 0.0},
        }
    },
}
