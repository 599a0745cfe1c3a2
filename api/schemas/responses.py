"""The shapes of responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.chat import (
    CitationObject,
    Grounds,
    JsonObjectFormat,
    NamedSchema,
    RemovedMarkerObject,
    StoreIds,
    TextFormat,
    only_served,
)
from api.schemas.common import Identifier, IfAny, Metadata, NotNull, Question, RequestModel, ResponseModel, Shown
from api.schemas.filters import Filters
from rag.ask import Truncation
from rag.context import Scalar

NOT_SERVED: Mapping[str, tuple[Any, ...]] = {
    "background": (None, False),
    "context_management": (None,),
    "conversation": (None,),
    "max_tool_calls": (None,),
    "moderation": (None,),
    "prompt_cache_options": (None,),
    "prompt_cache_retention": (None,),
    "reasoning": (None, {}),
    "service_tier": (None, "auto", "default"),
    "top_logprobs": (None, 0),
}
"""OpenAI's fields that nothing here acts on, with the values that ask for nothing. `background`: an answer ends with
its request, so that none is left hanging when a process ends. `conversation`: `previous_response_id` carries them."""

RESULTS = "file_search_call.results"
ITEM_TYPES = ("message", "file_search_call")
PART_TYPES = ("input_text", "output_text")


class SearchResult(ResponseModel):
    """One chunk that a search has found; `score` is its relevance."""

    file_id: IfAny[str] = None
    filename: IfAny[str] = None
    text: IfAny[str] = None
    score: IfAny[float] = None
    attributes: dict[str, Scalar | int] | None = None


class FileSearchCall(ResponseModel):
    """The search that an answer stands on."""

    id: str
    type: Literal["file_search_call"] = "file_search_call"
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"] = "completed"
    queries: list[str]
    results: list[SearchResult] | None = None


class FileCitation(ResponseModel):
    """OpenAI's annotation; `index` is where the marker begins in the text. `Citation` has the rest."""

    type: Literal["file_citation"] = "file_citation"
    file_id: str
    filename: str
    index: int


class OutputText(ResponseModel):
    """The words of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[FileCitation]
    logprobs: list[Any] = Field(default_factory=list)


class OutputMessage(ResponseModel):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class InputText(RequestModel):
    """A part of a question."""

    type: Literal["input_text"]
    text: str


class EasyMessage(RequestModel):
    """A turn of a conversation, in few words."""

    type: NotNull[Literal["message"]] = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText]


class InputMessage(RequestModel):
    """A turn of a conversation before the answer."""

    type: NotNull[Literal["message"]] = None
    role: Literal["user", "system", "developer"]
    status: NotNull[Literal["in_progress", "completed", "incomplete"]] = None
    content: list[InputText]


class StoredMessage(ResponseModel):
    """The same, as it is kept."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    status: IfAny[Literal["in_progress", "completed", "incomplete"]] = None
    content: list[InputText]


Item = EasyMessage | InputMessage | OutputMessage | FileSearchCall
"""What `InputItem` stands for."""


class ToolChoice(RequestModel):
    """The only tool that there is."""

    type: Literal["file_search"]


class InputPart(RequestModel):
    """A part of a message; text is the only kind."""

    type: Literal["input_text", "output_text"]
    text: Question
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputItem(RequestModel):
    """A message, or a search of an earlier answer, which is kept and not looked at."""

    type: Literal["message", "file_search_call"] = "message"
    id: Identifier | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Annotated[str, Field(max_length=1_000_000)] | Annotated[list[InputPart], Field(max_length=1_000)] = ""
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    queries: list[str] | None = None
    results: list[Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_known_kinds(cls, data: Any) -> Any:
        if isinstance(data, dict):
            _known(data.get("type", "message"), ITEM_TYPES, "Items", "input")
            parts = data.get("content")
            for part in parts if isinstance(parts, list) else ():
                _known(part.get("type") if isinstance(part, dict) else None, PART_TYPES, "Parts", "input")
        return data

    @model_validator(mode="after")
    def _messages_say_something(self) -> InputItem:
        if self.type == "message" and (self.role is None or "content" not in self.model_fields_set):
            raise ValueError("a message has a role and content")
        return self


class HybridSearch(RequestModel):
    """Weights of the two searches in the fusion of their ranks; only their proportion counts."""

    embedding_weight: float = Field(ge=0)
    text_weight: float = Field(ge=0)

    @model_validator(mode="after")
    def _one_counts(self) -> HybridSearch:
        if self.embedding_weight + self.text_weight <= 0:
            raise ValueError("one of the weights must be above 0")
        return self


class FileSearchRanking(RequestModel):
    """`score_threshold` is a relevance."""

    ranker: NotNull[Literal["auto", "default-2024-11-15"]] = None
    score_threshold: NotNull[Annotated[float, Field(ge=0, le=1)]] = None
    hybrid_search: NotNull[HybridSearch] = None


class FileSearchTool(RequestModel):
    """Where and how to search."""

    type: Literal["file_search"]
    vector_store_ids: StoreIds
    filters: Filters | None = None
    max_num_results: NotNull[Annotated[int, Field(ge=1, le=50)]] = None
    ranking_options: NotNull[FileSearchRanking] = None


class PromptReference(RequestModel):
    """A prompt template of this installation."""

    id: Identifier
    version: str | None = None
    variables: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class SchemaFormat(NamedSchema):
    """JSON by a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class TextOptions(RequestModel):
    """How the answer is written."""

    format: NotNull[Annotated[TextFormat | SchemaFormat | JsonObjectFormat, Field(discriminator="type")]] = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(RequestModel):
    """Nothing is hidden in the lengths of events, so there is nothing to obfuscate."""

    include_obfuscation: NotNull[bool] = None


class ResponseRequest(RequestModel):
    """OpenAI's response. Without the tool `file_search` the stores of the model's alias are searched, or the only one
    there is: every answer stands on a search. Beyond OpenAI's fields: `generation`, the id of one that is to be asked
    instead of its store's live one."""

    model: NotNull[Identifier] = None
    input: Question | Annotated[list[Annotated[InputItem, Shown(Item)]], Field(min_length=1, max_length=2_000)]
    instructions: Annotated[str, Field(max_length=1_000_000)] | None = None
    tools: NotNull[Annotated[list[FileSearchTool], Field(max_length=1)]] = None
    tool_choice: NotNull[Literal["auto", "required"] | Annotated[dict[str, Any], Shown(ToolChoice)]] = None
    include: list[str] | None = None
    previous_response_id: Identifier | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    truncation: Truncation | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=16)
    text: NotNull[TextOptions] = None
    prompt: PromptReference | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    user: NotNull[str] = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    generation: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_served(cls, data: Any) -> Any:
        return only_served(data, NOT_SERVED)

    @field_validator("tools", mode="before")
    @classmethod
    def _only_file_search(cls, tools: Any) -> Any:
        for tool in tools if isinstance(tools, list) else ():
            _known(tool.get("type") if isinstance(tool, dict) else None, ("file_search",), "Tools", "tools")
        return tools

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _a_choice_that_searches(cls, choice: Any) -> Any:
        kinds: list[Any] = [choice] if isinstance(choice, str) else []
        if isinstance(choice, dict):
            listed: Any = choice.get("tools") if choice.get("type") == "allowed_tools" else [choice]
            kinds = [tool.get("type") if isinstance(tool, dict) else None for tool in listed or [None]]
        for kind in kinds:
            _known(kind, ("auto", "required", "file_search"), "Choices", "tool_choice")
        return choice

    @field_validator("include")
    @classmethod
    def _only_results(cls, include: list[str] | None) -> list[str] | None:
        return require_includes(include)

    @property
    def tool(self) -> FileSearchTool | None:
        """The only tool, where it is given."""
        return self.tools[0] if self.tools else None

    def response_format(self) -> dict[str, Any] | None:
        """The form of the answer as a provider takes it; None for text."""
        given = self.text.format if self.text else None
        if given is None or given.type == "text":
            return None
        fields = given.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"type": given.type, **({given.type: fields} if given.type == "json_schema" else {})}


def require_includes(include: list[str] | None) -> list[str] | None:
    """The names of what is to be included. Refuses what is never there."""
    for name in include or ():
        _known(name, (RESULTS,), "Inclusions", "include")
    return include


def _known(kind: Any, known: tuple[str, ...], noun: str, param: str) -> None:
    if kind not in known:
        message = "{noun} of the kind {kind} are not served here, only {known}."
        context = {"noun": noun, "kind": repr(kind)[:100], "known": ", ".join(map(repr, known)), "param": param}
        raise PydanticCustomError("unsupported_parameter", message, context)


class CachedTokens(ResponseModel):
    """None that this server knows of."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class ReasoningTokens(ResponseModel):
    """None that this server knows of."""

    reasoning_tokens: int = 0


class ResponseUsage(ResponseModel):
    """Tokens, as the provider counted them where it did."""

    input_tokens: int
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens: int
    output_tokens_details: ReasoningTokens = ReasoningTokens()
    total_tokens: int


class ResponseErrorObject(ResponseModel):
    """Why there is no answer."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(ResponseModel):
    """Why an answer breaks off."""

    reason: IfAny[Literal["max_output_tokens", "content_filter"]] = None


Seconds = Annotated[int, WithJsonSchema({"type": "number"})]
"""Since 1970; whole ones, where OpenAI allows for parts."""


class ResponseObject(ResponseModel):
    """OpenAI's response, and what the answer stands on once it is there."""

    id: str
    object: Literal["response"] = "response"
    created_at: Seconds
    completed_at: Seconds | None = None
    status: IfAny[Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]] = None
    background: Literal[False] = False
    error: ResponseErrorObject | None = Field(...)
    incomplete_details: IncompleteDetails | None = Field(...)
    instructions: str | None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None
    model: str
    output: list[FileSearchCall | OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: None = None
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float | None
    text: Annotated[IfAny[dict[str, Any]], Shown(TextOptions)] = None
    tool_choice: Annotated[Any, Shown(Literal["none", "auto", "required"] | ToolChoice)]
    tools: list[Annotated[dict[str, Any], Shown(FileSearchTool)]]
    top_logprobs: int = 0
    top_p: float | None
    truncation: Truncation | None = None
    usage: IfAny[ResponseUsage] = None
    """Not there as long as nothing was counted."""
    user: IfAny[str] = None
    citations: list[CitationObject] = Field(default_factory=list)
    grounded: bool | None = None
    removed_markers: list[RemovedMarkerObject] = Field(default_factory=list)
    trace_id: str


class _Event(ResponseModel):
    sequence_number: int


class _Place(_Event):
    item_id: str
    output_index: int


class _TextPlace(_Place):
    content_index: int


class ResponseCreatedEvent(_Event):
    """The answer is being written."""

    type: Literal["response.created"] = "response.created"
    response: ResponseObject


class ResponseInProgressEvent(_Event):
    """The same, once more."""

    type: Literal["response.in_progress"] = "response.in_progress"
    response: ResponseObject


class ResponseCompletedEvent(_Event):
    """The answer is whole."""

    type: Literal["response.completed"] = "response.completed"
    response: ResponseObject


class ResponseIncompleteEvent(_Event):
    """The answer breaks off."""

    type: Literal["response.incomplete"] = "response.incomplete"
    response: ResponseObject


class ResponseFailedEvent(_Event):
    """There is no answer."""

    type: Literal["response.failed"] = "response.failed"
    response: ResponseObject


class SearchInProgressEvent(_Place):
    """A search begins."""

    type: Literal["response.file_search_call.in_progress"] = "response.file_search_call.in_progress"


class SearchSearchingEvent(_Place):
    """A search is being made."""

    type: Literal["response.file_search_call.searching"] = "response.file_search_call.searching"


class SearchCompletedEvent(_Place):
    """A search is done."""

    type: Literal["response.file_search_call.completed"] = "response.file_search_call.completed"


class ItemAddedEvent(_Event):
    """An item begins."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    output_index: int
    item: FileSearchCall | OutputMessage


class ItemDoneEvent(_Event):
    """An item is whole."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    output_index: int
    item: FileSearchCall | OutputMessage


class PartAddedEvent(_TextPlace):
    """A part of the message begins."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: OutputText


class PartDoneEvent(_TextPlace):
    """A part of the message is whole."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: OutputText


class TextDeltaEvent(_TextPlace):
    """Words of the answer."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str
    logprobs: list[Any]


class TextDoneEvent(_TextPlace):
    """All words of the answer."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str
    logprobs: list[Any]


class AnnotationEvent(_TextPlace):
    """A citation whose marker was just sent."""

    type: Literal["response.output_text.annotation.added"] = "response.output_text.annotation.added"
    annotation_index: int
    annotation: FileCitation | None


ResponseEvent = Annotated[
    ResponseCreatedEvent
    | ResponseInProgressEvent
    | ResponseCompletedEvent
    | ResponseIncompleteEvent
    | ResponseFailedEvent
    | SearchInProgressEvent
    | SearchSearchingEvent
    | SearchCompletedEvent
    | ItemAddedEvent
    | ItemDoneEvent
    | PartAddedEvent
    | PartDoneEvent
    | TextDeltaEvent
    | TextDoneEvent
    | AnnotationEvent,
    Field(discriminator="type"),
]
"""One event of a stream."""


class InputItemList(ResponseModel):
    """One page of what a response answers; `last_id` is the cursor of the next one."""

    object: Literal["list"] = "list"
    data: list[Annotated[dict[str, Any], Shown(StoredMessage | OutputMessage | FileSearchCall)]]
    first_id: str
    last_id: str
    has_more: bool


class DeletedResponse(ResponseModel):
    """Which response was forgotten."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


def with_grounds(response: ResponseObject, grounds: Grounds, **changes: Any) -> ResponseObject:
    """A response with what its answer stands on."""
    return response.model_copy(update={**dict(grounds), **changes})
