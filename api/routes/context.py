"""Context: packed passages, the prompt's messages and the ledger; no model is called."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.chat import Answering, ContextRequest, ContextResponse, PassageObject, PromptObject, plain_messages
from api.schemas.search import search_options
from indexes.errors import ChangeRequest
from rag import listing
from rag.ab_tests import assigned
from rag.access import Caller
from rag.ask import Ask, Kind, Prepared, prepare
from rag.backend import Backend
from rag.catalog.records import Store
from rag.context import Message
from rag.models import Sampling

router = new_router(tags=["context"])


@router.post("/v1/context", dependencies=[requires("query")])
def make_context(body: ContextRequest, request: Request, backend: OpenBackend) -> ContextResponse:
    """The context for a question over the stores that the body names."""
    return _context(request, backend, body, named_stores(backend, body.vector_store_ids, body.model))


@router.post("/v1/vector_stores/{vector_store_id}/context", dependencies=[requires("query")])
def make_store_context(
    body: ContextRequest, request: Request, store: NamedStore, backend: OpenBackend
) -> ContextResponse:
    """The context for a question over one store."""
    if body.vector_store_ids is not None:
        raise ChangeRequest(
            "The path names the vector store already: leave 'vector_store_ids' out.",
            code="unknown_parameter",
            param="vector_store_ids",
        )
    return _context(request, backend, body, [store])


def named_stores(backend: Backend, names: Sequence[str] | None, model: str | None = None) -> list[Store]:
    """The stores of a request, each once; when it names none, those of the model's alias, and when that names none
    either, the only one there is. Raises NotThere."""
    names = names or backend.models.get(model).vector_stores
    if not names:
        return [listing.only_store(backend)]
    found = {store.id: store for store in (backend.find_store(name) for name in names)}
    return list(found.values())


def user_of(caller: Caller, *named: str | None) -> str | None:
    """Who asks: the user of a signed claim, else the first of these names that a request has."""
    return next(filter(None, (caller.user, *named)), None)


def to_ask(
    body: Answering,
    stores: Sequence[Store],
    messages: tuple[Message, ...],
    sampling: Sampling,
    kind: Kind = "context",
) -> Ask:
    """What a request asks for. Raises ChangeRequest for a filter that is not one."""
    return Ask(
        stores=tuple(stores),
        messages=messages,
        kind=kind,
        model=body.model,
        prompt=body.prompt,
        search=search_options(body, body.score_threshold),
        sampling=sampling,
        window=body.window,
        tokenizer=body.tokenizer,
        order=body.order,
        max_passages=body.max_passages,
    )


def _context(request: Request, backend: Backend, body: ContextRequest, stores: Sequence[Store]) -> ContextResponse:
    messages: tuple[Message, ...] = ({"role": "user", "content": body.question or ""},)
    if body.messages is not None:
        messages = plain_messages(body.messages)
    ask = to_ask(body, stores, messages, Sampling(max_tokens=body.max_tokens))
    prepared = prepare(backend, assigned(backend, ask, user_of(backend.caller, body.user)))
    request.state.trace_id = prepared.trace_id
    return _context_response(prepared)


def _context_response(prepared: Prepared) -> ContextResponse:
    context = prepared.context
    return ContextResponse(
        messages=list(context.messages),
        passages=[PassageObject.model_validate(passage) for passage in context.passages],
        ledger=context.ledger,
        grounded=context.grounded,
        prompt=PromptObject(id=context.prompt_id, hash=context.prompt_hash),
        model=prepared.alias.name,
        query=prepared.query,
        trace_id=prepared.trace_id,
        timings_ms={name: round(seconds * 1000, 3) for name, seconds in prepared.timings.items()},
    )
