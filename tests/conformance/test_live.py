"""What the server answers is valid by OpenAI's specification, and the validation would say so if it were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.live import Live, calling, run, serve
from tests.conformance.score import GROUPS, operations
from tests.conformance.test_score import COMPLETE
from tests.data import pinned_specification
from tests.fakes.openai_server import FakeOpenAI


def test_every_answer_is_valid(tmp_path: Path) -> None:
    pinned = pinned_specification()
    with FakeOpenAI() as provider, serve(tmp_path, provider) as server, calling(server) as http:
        live = run(http, pinned, COMPLETE)
    assert live.mismatches == {}
    served = tuple(GROUPS[group] for group in COMPLETE)
    assert [name for name in live.unanswered() if name.split()[1].startswith(served)] == []
    assert len(live.statuses) == sum(path.startswith(served) for _, path in operations(pinned))


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("GET /files", {"object": "list", "data": [], "first_id": None, "last_id": "", "has_more": False}),
        ("GET /models", {"object": "list", "data": [{"id": "x", "object": "model", "owned_by": "y"}]}),
        ("GET /vector_stores", {"object": "list", "data": [{}], "first_id": "", "last_id": "", "has_more": False}),
        ("DELETE /files/{file_id}", {"id": "x", "object": "vector_store.deleted", "deleted": True}),
        ("DELETE /files/{file_id}", []),
    ],
)
def test_a_body_that_is_not_valid_is_found(operation: str, body: Any) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=body)

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://localhost") as http:
        live = Live(http, pinned_specification())
        live.call(operation, 200, "x")
        assert live.mismatches[operation]
        live.call(operation, 404, "x")
        assert "status 200" in live.mismatches[operation][-1]
