"""What schemathesis is told about this interface: which refusals of requests that fit the schema are in order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData
from schemathesis.specs.openapi.checks import (
    ensure_resource_availability,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
)

BEYOND_THE_SCHEMA: Mapping[str, str] = {
    "ab_test_running": "depends on which tests run",
    "ambiguous_name": "depends on how many stores have the name",
    "another_folder": "depends on which folder the store remembers",
    "bad_cursor": "depends on which rows there are",
    "broken_line": "a text of JSON lines, which no schema looks into",
    "chunking_strategy_differs": "depends on the store",
    "context_length_exceeded": "depends on the model's window and the length of the prompt",
    "empty_question_set": "a text without lines, or a set without questions of that split",
    "empty_query": "a question of white space only",
    "file_in_store": "depends on the store",
    "bad_settings": "depends on which engines go together",
    "generation_failed": "depends on the generation's state",
    "generation_live": "depends on the generation's state",
    "generation_not_filled": "depends on the generation's state",
    "generation_not_mirrored": "depends on the generation's state",
    "generation_not_ready": "depends on the generation's state",
    "generation_not_searchable": "depends on the generation's state",
    "generation_paused": "depends on the generation's state",
    "generation_retired": "depends on the generation's state",
    "no_standby": "depends on which generations there are",
    "filter_type": "depends on the attributes of the store's documents",
    "idempotency_key_reused": "depends on what was sent with the key before",
    "invalid_arms": "arms of the same name, or the same in all else, or whose shares do not make up 1",
    "invalid_condition": "an operator of Dify's that filters do not have, or that does not take the value",
    "invalid_filter": "a filter too deep, or of too many nodes",
    "invalid_sampling": "a top_p of 0, which OpenAI's schema allows",
    "invalid_token": "which numbers are tokens depends on the vocabulary",
    "invalid_value /v1/feedback": "a value or a label, not both, and null counts as left out",
    "invalid_value arms": "each arm has a name of its own",
    "invalid_value file_ids": "`file_ids` or `files`, which OpenAI's schema leaves to words",
    "invalid_value input.0.content.0.text": "OpenAI's schema allows a text of no character",
    "invalid_value input.0.id": "OpenAI's schema allows an id of no character",
    "invalid_value name": "a name that looks like an id",
    "invalid_value only_if_absent": "it needs a name",
    "invalid_value chunking_strategy.static": "an overlap of more than half the size",
    "invalid_value files.0.chunking_strategy.static": "an overlap of more than half the size",
    "invalid_value scopes": "a key for administrators has none of the other fields",
    "invalid_value tools.0.ranking_options.hybrid_search": "OpenAI's schema allows both weights to be 0",
    "invalid_window": "depends on the model",
    "nothing_to_cancel": "depends on the document's state",
    "nothing_to_retry": "depends on the document's state",
    "nul_character": "OpenAI's schema allows a character that no database takes",
    "too_many_questions": "depends on the size of the set",
    "unknown_measure": "a measure is whatever ir-measures can read",
    "unknown_tokenizer": "depends on the settings",
    "unknown_parameter input": "items of an answer that are sent back: OpenAI's schema leaves them open",
    "unknown_parameter vector_store_ids": "the path names the store already; a schema of its own would say it",
    "unknown_prompt": "depends on the settings",
    "unknown_name": "depends on the settings: an embedder or a tokenizer that is not there",
    "unknown_filter_key": "depends on the attributes of the store's documents",
    "unsupported_dimensions": "depends on the embedder",
    "unsupported_parameter": "an OpenAI field that nothing here acts on, with a value that asks for something",
    "vector_store_required": "depends on how many stores there are",
}
"""Codes of 400 (where one would say too much, with the field or the path) that answer a request which fits the schema,
and why the schema cannot say it."""


THERE: Mapping[str, str] = json.loads(os.environ.get("SCHEMA_EXAMPLES", "{}"))
"""The ids of what the filled store has, in place of what the schema's examples name."""
GONE = "gone"
LAST_OF = ("/v1/files/{file_id}", "/v1/vector_stores/{vector_store_id}")
"""Where a DELETE takes a thing away for good."""


@schemathesis.serializer("application/jsonl")
def json_lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A body of JSON lines, which is a text in the schema."""
    return value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """Let examples name what is there, and let nothing delete that: what is then refused would tell nothing."""
    deletes = case.method == "DELETE" and case.operation.path in LAST_OF
    names = dict.fromkeys([*THERE, *THERE.values()], GONE) if deletes else THERE
    for part in ("path_parameters", "body"):
        given = getattr(case, part)
        if (named := _named(given, names)) != given:  # what was set is no longer trusted to be what was generated
            setattr(case, part, named)


def _named(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        owned = {"owned": False} if value.get("owned") and value.get("file_id") in (*names, *names.values()) else {}
        return {name: _named(part, names) for name, part in value.items()} | owned
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


@schemathesis.check
def accepted_or_named(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """The default check that what fits the schema is accepted, but for the codes above."""
    try:
        positive_data_acceptance(ctx, response, case)
    except RejectedPositiveData:
        error = _error(response)
        place = re.sub(r"\.\d+(?=\.|$)", ".0", error["param"] or "")
        places = {place, place.partition(".")[0], case.operation.path}
        names = {error["code"], *(f"{error['code']} {named}" for named in places)}
        if response.status_code != 400 or not names & BEYOND_THE_SCHEMA.keys():
            raise


@schemathesis.check
def refused_or_as_good_as_right(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """The default check that what does not fit the schema is refused; by its size as well, where that comes first. Null
    for a field that may be left out says the same as leaving it out, though OpenAI's types do not have it."""
    try:
        negative_data_rejection(ctx, response, case)
    except AcceptedNegativeData:
        if response.status_code != 413 and not _fits_without_nulls(case):
            raise


def _fits_without_nulls(case: schemathesis.Case) -> bool:
    document = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.method.lower()]
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is None or not isinstance(case.body, dict):
        return False
    checked = jsonschema.Draft202012Validator(schema | {"components": document["components"]})
    return bool(checked.is_valid(_without_nulls(case.body)))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


@schemathesis.check
def keeps_the_schema(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """The default check of what is answered; a stream's schema is, as in OpenAI's specification, that of the JSON which
    each event carries, not of the event."""
    if "text/event-stream" not in response.headers.get("content-type", [""])[0]:
        response_schema_conformance(ctx, response, case)
        return
    document = case.operation.schema.raw_schema
    said = document["paths"][case.operation.path][case.method.lower()]["responses"]["200"]["content"]
    schema = said["text/event-stream"]["schema"] | {"components": document["components"]}
    data = [line[6:] for line in response.content.decode().splitlines() if line.startswith("data: ")]
    assert data
    for event in data:
        if event != "[DONE]":
            jsonschema.Draft202012Validator(schema).validate(json.loads(event))


@schemathesis.check
def created_is_there(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """The default check that what was created is found, but where it is something else in the body that is not."""
    try:
        ensure_resource_availability(ctx, response, case)
    except EnsureResourceAvailability:
        named = {parameter.name for parameter in case.operation.path_parameters}
        if _error(response)["param"] in {*named, None}:
            raise


def _error(response: schemathesis.Response) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(response.content)["error"]
    return error
