"""The shapes of context and chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from api.schemas import not_served
from api.schemas.common import Identifier, IfAny, Metadata, OrNull, Question, RequestModel, ResponseModel, UsageObject
from api.schemas.search import Retrieving
from rag.context import Ledger, Message, Scalar
from rag.evaluation.groundedness import BLIND_SPOTS
from rag.pack_settings import Order


class ContentPart(RequestModel):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: Question


class RefusalPart(RequestModel):
    """A part of an earlier answer that says why there was none."""

    type: Literal["refusal"]
    refusal: Question

    @property
    def text(self) -> str:
        return self.refusal


Text = Annotated[str, Field(max_length=1_000_000)]
SaidParts = Annotated[list[Annotated[ContentPart | RefusalPart, Field(discriminator="type")]], Field(max_length=1_000)]


class _Turn(RequestModel):
    """What is asked, or said about how to answer."""

    content: Text | Annotated[list[ContentPart], Field(max_length=1_000)]
    name: OrNull[str] = None


class DeveloperMessage(_Turn):
    """How to answer, from who runs the application."""

    role: Literal["developer"]


class SystemMessage(_Turn):
    """The same, as older clients say it."""

    role: Literal["system"]


class UserMessage(_Turn):
    """A question."""

    role: Literal["user"]


class EarlierAnswer(RequestModel):
    """An answer. What ours carry besides their text may be sent back, and is not looked at."""

    role: Literal["assistant"]
    content: Text | SaidParts | None = None
    name: OrNull[str] = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


ChatMessage = Annotated[DeveloperMessage | SystemMessage | UserMessage | EarlierAnswer, Field(discriminator="role")]
Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=2_000)]
StoreIds = Annotated[list[Identifier], Field(min_length=1, max_length=16)]


class Answering(Retrieving):
    """What context and chat requests may choose beyond retrieval."""

    vector_store_ids: StoreIds | None = None
    """Ids or unique names; left out, the only store there is."""
    model: Identifier | None = None
    prompt: Identifier | None = None
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    window: int | None = Field(default=None, ge=1)
    tokenizer: Identifier | None = None
    order: Order | None = None
    max_passages: int | None = Field(default=None, ge=1)


def _there(name: str, kind: str) -> dict[str, JsonValue]:
    """The JSON schema of an object that has this field, and not as null."""
    return {"required": [name], "properties": {name: {"type": kind}}}


class ContextRequest(Answering):
    """A conversation or one question."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_there("messages", "array"), _there("question", "string")]})

    messages: Messages | None = None
    question: Question | None = None
    user: Identifier | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> ContextRequest:
        if (self.messages is None) == (self.question is None):
            raise PydanticCustomError("question", "send either 'messages' or 'question'", {"param": "messages"})
        return self


class StreamOptions(RequestModel):
    """`include_usage` adds a last chunk with the usage and no choices."""

    include_usage: OrNull[bool] = None
    include_obfuscation: OrNull[bool] = None


class TextFormat(RequestModel):
    """Words."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Any JSON."""

    type: Literal["json_object"]


class NamedSchema(RequestModel):
    """A JSON schema; it is the provider's to judge."""

    name: str
    description: OrNull[str] = None
    schema_: OrNull[dict[str, Any]] = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(RequestModel):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatRequest(Answering):
    """OpenAI's chat completion; `model` is an alias of the registry."""

    model: Identifier
    messages: Messages
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: OrNull[ResponseFormat] = None
    """Passed on where the alias says that its server has the form."""
    store: bool | None = None
    """Keep the completion, so that it can be asked for again."""
    groundedness: bool | None = None
    """Say of each sentence of the answer whether it stands on its passages."""
    metadata: Metadata | None = None
    user: OrNull[str] = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_served(cls, data: Any) -> Any:
        return not_served.only_served(data, not_served.CHAT)

    def wanted_format(self) -> dict[str, Any] | None:
        """The form of the answer as a provider takes it; None for text."""
        given = self.response_format
        return None if given is None or given.type == "text" else given.model_dump(by_alias=True, exclude_none=True)


class PassageObject(ResponseModel):
    """A stretch of one document version as it stands in the prompt."""

    number: int
    vector_store_id: str = Field(validation_alias="store_id")
    file_id: str
    filename: str
    title: str
    document_id: int
    version_id: int
    page: int | None
    start: int
    end: int
    heading_path: list[str]
    text: str
    tokens: int
    relevance: float
    attributes: dict[str, Scalar | int]
    chunk_ids: list[int]


class PromptObject(ResponseModel):
    """Which version of which prompt was used."""

    id: str
    hash: str


class ContextResponse(ResponseModel):
    """`messages` are ready for any model; `ledger` tells what became of every candidate, and counts the window."""

    object: Literal["context"] = "context"
    messages: list[Message]
    passages: list[PassageObject]
    ledger: Ledger
    grounded: bool
    prompt: PromptObject
    model: str
    query: str
    """What was searched for: the question, with what came before it where it leans on that."""
    trace_id: str
    timings_ms: dict[str, float]


class CitationObject(ResponseModel):
    """One marker of the answer, `answer[marker_start:marker_end]`, and what it stands for:
    `document_text[start:end] == quote`, in characters."""

    number: int
    vector_store_id: str = Field(validation_alias="store_id")
    file_id: str
    filename: str
    title: str
    document_id: int
    version_id: int
    start: int
    end: int
    page: int | None
    heading_path: list[str]
    quote: str
    marker_start: int
    marker_end: int


class RemovedMarkerObject(ResponseModel):
    """A marker that named a passage which is not there; it was taken out at `position`."""

    raw: str
    position: int


class LackObject(ResponseModel):
    """What of a sentence its passages do not have. In a trace, `text` is there only with `traces.capture`."""

    kind: Literal["number", "unit", "name", "code", "word"]
    text: str | None


class SentenceObject(ResponseModel):
    """What was found of `answer[start:end]`: `coverage` is the weighed share of its words that the passages in
    `looked_at` hold, those that it cites or else all."""

    start: int
    end: int
    supported: bool
    coverage: float
    missing: list[LackObject]
    cited: list[int]
    looked_at: list[int]


class GroundednessObject(ResponseModel):
    """Whether each sentence of an answer stands on its passages, by its words alone, and what that cannot see."""

    method: Literal["words"] = "words"
    sentences: int
    unsupported: int
    details: list[SentenceObject]
    blind_spots: list[str] = Field(default=list(BLIND_SPOTS))


class UrlCitation(ResponseModel):
    """Where in the answer a source is named, and where the source can be had."""

    start_index: int
    end_index: int
    url: str
    title: str


class Annotation(ResponseModel):
    """OpenAI's annotation of a chat message."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class AssistantMessage(ResponseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(...)
    refusal: str | None = Field(...)
    annotations: IfAny[list[Annotation]] = None


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class Choice(ResponseModel):
    """The only choice, which ends with `stop` or `length`."""

    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReason


class Grounds(ResponseModel):
    """What an answer stands on. In a stream, the chunk with the finish reason and the one with the usage carry it."""

    citations: list[CitationObject]
    grounded: bool
    removed_markers: list[RemovedMarkerObject]
    trace_id: str
    """What `/v1/traces/{id}` tells of it, and feedback names."""
    wording_usage: IfAny[UsageObject] = None
    """What a model took to word the question for the search, where one was asked: it is not in `usage`."""


class ChatCompletion(Grounds):
    """OpenAI's chat completion, and what the answer stands on."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: IfAny[UsageObject] = None
    metadata: dict[str, str] | None = None
    groundedness: IfAny[GroundednessObject] = None
    """Where the request asks for it, and the answer claims something in words."""


class Delta(ResponseModel):
    """What a chunk adds to the message; `annotations` come with the last one."""

    role: IfAny[Literal["developer", "system", "user", "assistant", "tool"]] = None
    content: str | None = None
    refusal: str | None = None
    annotations: IfAny[list[Annotation]] = None


class ChunkChoice(ResponseModel):
    """What a chunk adds to the only choice."""

    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = Field(...)


class ChatCompletionChunk(ResponseModel):
    """One event of a stream, which `[DONE]` ends. What the answer stands on comes with the reason of the finish."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageObject | None = None
    citations: IfAny[list[CitationObject]] = None
    grounded: IfAny[bool] = None
    removed_markers: IfAny[list[RemovedMarkerObject]] = None
    trace_id: IfAny[str] = None
    wording_usage: IfAny[UsageObject] = None
    groundedness: IfAny[GroundednessObject] = None


class ChatCompletionList(ResponseModel):
    """One page of stored completions; `last_id` is the cursor of the next one."""

    object: Literal["list"] = "list"
    data: list[ChatCompletion]
    first_id: str
    last_id: str
    has_more: bool


class DeletedCompletion(ResponseModel):
    """Which completion was forgotten."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True


def plain_messages(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """Turns as the packer takes them: text only, `developer` as `system`."""
    return tuple(
        {"role": "system" if turn.role == "developer" else turn.role, "content": _text(turn)} for turn in messages
    )


def _text(turn: ChatMessage) -> str:
    return turn.content if isinstance(turn.content, str) else "\n".join(part.text for part in turn.content or ())
