"""The command line. Only typer is imported here; each command imports what it needs when it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from api.commands.call import Call, end_in_order, reporting, start_logging
from api.commands.output import tolerant_streams


class Role(StrEnum):
    """What a server does."""

    all = "all"
    api = "api"
    worker = "worker"


class Mode(StrEnum):
    """How to retrieve."""

    hybrid = "hybrid"
    dense = "dense"
    keyword = "keyword"


class Split(StrEnum):
    """Of a question set."""

    dev = "dev"
    test = "test"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="RAG_URL", help="Speak to the server at this address."),
]


class KeyScope(StrEnum):
    """What a key is good for."""

    query = "query"
    ingest = "ingest"
    admin = "admin"


ApiKey = Annotated[str | None, typer.Option("--key", help="The key to come with [RAG_API_KEY].")]
DataFolder = Annotated[Path | None, typer.Option("--data", readable=False, help="The data folder [RAG_DATA].")]
ConfigFile = Annotated[Path | None, typer.Option("--config", readable=False, help="The settings file [RAG_CONFIG].")]
Store = Annotated[str, typer.Argument(metavar="STORE", help="A vector store's name or id.")]
Question = Annotated[str, typer.Argument(metavar="QUESTION")]
Generation = Annotated[str, typer.Argument(metavar="GENERATION", help="A generation's id.")]
ABTest = Annotated[str, typer.Argument(metavar="TEST", help="An A/B test's id.")]
CatchUp = Annotated[
    float | None, typer.Option("--wait-seconds", min=0, help="For how long to wait for what came last.")
]
Documents = Annotated[list[str], typer.Argument(metavar="FILE...", help="File ids or sources.")]
SomeDocuments = Annotated[list[str] | None, typer.Argument(metavar="[FILE...]", help="File ids or sources.")]
Model = Annotated[str | None, typer.Option("--model", help="A model's alias (see `rag models`).")]
EmbedderAlias = Annotated[str | None, typer.Option("--embedder", help="The embedder's alias, for a new store.")]
RetrievalMode = Annotated[Mode | None, typer.Option("--mode", help="How to retrieve.")]
Permissions = Annotated[
    list[str] | None,
    typer.Option("--permission", metavar="TAG", help="Only keys that hold this tag see the documents (repeatable)."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every document has ended.")]
Yes = Annotated[bool, typer.Option("--yes", help="Really remove so much.")]


def _shared(
    json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
    data: DataFolder = None,
    config: ConfigFile = None,
) -> Call:
    """The options of every command."""
    return Call(json, url, key, data, config)


def command(group: typer.Typer, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command: the shared options take the place of its first parameter, the Call."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        return group.command(**settings)(_with_shared(function))

    return register


def _with_shared(function: Callable[..., None]) -> Callable[..., None]:
    shared = inspect.signature(_shared).parameters
    own = list(inspect.signature(function).parameters.values())[1:]
    hints = get_type_hints(function, include_extras=True) | get_type_hints(_shared, include_extras=True)

    @functools.wraps(function)
    def called(**values: Any) -> None:
        call = _shared(**{name: values.pop(name) for name in shared})
        with reporting(as_json=call.json):
            function(call, **values)

    parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in [*own, *shared.values()]]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    del called.__wrapped__
    return called


app = typer.Typer(
    name="rag",
    help="Documents in, grounded prompts and cited answers out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing boxes costs more than all the rest of the help
    add_completion=False,
)
stores_app = typer.Typer(
    help="List, make and delete vector stores.", invoke_without_command=True, rich_markup_mode=None
)
generations_app = typer.Typer(
    help="Build another generation of a store beside the live one, promote it, go back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ab_app = typer.Typer(help="Compare prompts and models on live users.", no_args_is_help=True, rich_markup_mode=None)
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)
eval_app = typer.Typer(help="Measure retrieval.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(stores_app, name="stores")
app.add_typer(generations_app, name="generations")
app.add_typer(ab_app, name="ab")
app.add_typer(keys_app, name="keys")
questions_app = typer.Typer(help="Keep question sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(eval_app, name="eval")
eval_app.add_typer(questions_app, name="questions")


@command(app)
def serve(
    call: Call,
    host: Annotated[str | None, typer.Option(help="The address to listen on [RAG_SERVER_HOST].")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on [RAG_SERVER_PORT].")] = None,
    role: Annotated[Role | None, typer.Option(help="Answer requests, run jobs, or both [RAG_SERVER_ROLE].")] = None,
    with_manual: Annotated[bool, typer.Option("--with-manual", help="Fill a store from the project's manual.")] = False,
) -> None:
    """Run the HTTP API and the jobs (over one data folder: unless another process runs them)."""
    from api.commands import serve as commands

    commands.run(call, {"server.host": host, "server.port": port, "server.role": role}, with_manual=with_manual)


@command(app)
def ingest(
    call: Call,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", readable=False, help="Files, folders, patterns.")],
    store: Annotated[str, typer.Option("--store", help="The vector store; made if it is not there.")],
    wait: Wait = True,
    yes: Yes = False,
    embedder: EmbedderAlias = None,
    permission: Permissions = None,
) -> None:
    """Put files into a store. A folder is synced: what changed is embedded, what is gone is removed."""
    from api.commands import ingest as commands

    commands.run(call, paths, store, wait=wait, yes=yes, embedder=embedder, permissions=permission)


@command(app)
def status(call: Call, store: Annotated[str | None, typer.Argument(metavar="[STORE]")] = None) -> None:
    """Show what is being done, or how far a store is."""
    from api.commands import corpus

    corpus.show_status(call, store)


def _list_stores(call: Call, context: typer.Context) -> None:
    """List vector stores."""
    if context.invoked_subcommand is None:
        from api.commands import corpus

        corpus.list_stores(call)


stores_app.callback()(_with_shared(_list_stores))


@command(stores_app, name="create")
def create_store(
    call: Call, name: Annotated[str, typer.Argument(metavar="NAME")], embedder: EmbedderAlias = None
) -> None:
    """Make an empty store."""
    from api.commands import corpus

    corpus.create_store(call, name, embedder)


@command(stores_app, name="delete")
def delete_store(call: Call, store: Store, yes: Yes = False) -> None:
    """Delete a store with its documents."""
    from api.commands import corpus

    corpus.delete_store(call, store, yes=yes)


@command(generations_app, name="list")
def list_generations(call: Call, store: Store) -> None:
    """List the generations of a store."""
    from api.commands import generations

    generations.list_generations(call, store)


@command(generations_app, name="show")
def show_generation(call: Call, store: Store, generation: Generation) -> None:
    """Show a generation and what was done to it."""
    from api.commands import generations

    generations.show_generation(call, store, generation)


@command(generations_app, name="create")
def create_generation(
    call: Call,
    store: Store,
    embedder: Annotated[str | None, typer.Option(help="The embedder's alias [the live one's].")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Split anew, into chunks of so many tokens.")] = None,
    overlap_tokens: Annotated[int, typer.Option(help="Of them, so many from the chunk before.")] = 0,
    vector_index: Annotated[str | None, typer.Option(help="The vector index [the live one's].")] = None,
    keyword_index: Annotated[str | None, typer.Option(help="The keyword index [the live one's].")] = None,
    mode: RetrievalMode = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
) -> None:
    """Build a generation beside the live one."""
    from api.commands import generations

    sizes = {"max_chunk_size_tokens": chunk_tokens, "chunk_overlap_tokens": overlap_tokens}
    body = {
        "embedder": embedder,
        "chunking_strategy": {"type": "static", "static": sizes} if chunk_tokens is not None else None,
        "vector_index": vector_index,
        "keyword_index": keyword_index,
        "retrieval": {"mode": mode.value} if mode else None,
    }
    generations.create_generation(call, store, body, wait=wait)


@command(generations_app, name="promote")
def promote_generation(
    call: Call,
    store: Store,
    generation: Generation,
    force: Annotated[bool, typer.Option("--force", help="Go past the gate; that is recorded.")] = False,
    wait_seconds: CatchUp = None,
) -> None:
    """Let a generation answer instead of the live one."""
    from api.commands import generations

    generations.promote_generation(call, store, generation, force=force, wait=wait_seconds)


@command(generations_app, name="rollback")
def roll_back(call: Call, store: Store, wait_seconds: CatchUp = None) -> None:
    """Let the generation answer again that was live last."""
    from api.commands import generations

    generations.roll_back(call, store, wait_seconds)


@command(generations_app, name="mirror")
def mirror_generation(
    call: Call,
    store: Store,
    generation: Generation,
    share: Annotated[float, typer.Argument(min=0, max=1, help="Of the questions; 0 for none.")],
) -> None:
    """Ask a generation a share of the live questions too, and compare what it finds."""
    from api.commands import generations

    generations.mirror_generation(call, store, generation, share)


@command(generations_app, name="pause")
def pause_generation(call: Call, store: Store, generation: Generation) -> None:
    """Stop filling a generation for a while."""
    from api.commands import generations

    generations.change_generation(call, store, generation, "pause")


@command(generations_app, name="resume")
def resume_generation(call: Call, store: Store, generation: Generation) -> None:
    """Go on filling a generation that was paused, or that failed."""
    from api.commands import generations

    generations.change_generation(call, store, generation, "resume")


@command(generations_app, name="retire")
def retire_generation(call: Call, store: Store, generation: Generation) -> None:
    """Give a generation up for good."""
    from api.commands import generations

    generations.change_generation(call, store, generation, "retire")


@command(ab_app, name="create")
def create_ab_test(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    arms: Annotated[
        list[str],
        typer.Argument(
            metavar="ARM...",
            help="NAME:SHARE, then prompt=NAME and model=ALIAS with commas: warm:0.5,prompt=warm. The first is how it "
            "is now.",
        ),
    ],
) -> None:
    """Begin an A/B test of prompts, models or both."""
    from api.commands import ab_tests

    ab_tests.create_test(call, name, arms)


@command(ab_app, name="list")
def list_ab_tests(call: Call) -> None:
    """List A/B tests and their arms."""
    from api.commands import ab_tests

    ab_tests.list_tests(call)


@command(ab_app, name="show")
def show_ab_test(call: Call, test: ABTest) -> None:
    """Show what the arms of an A/B test have come to, and what their differences are worth."""
    from api.commands import ab_tests

    ab_tests.show_report(call, test)


@command(ab_app, name="end")
def end_ab_test(call: Call, test: ABTest) -> None:
    """Let nobody take part in an A/B test any more. Its report stays."""
    from api.commands import ab_tests

    ab_tests.end_test(call, test)


@command(ab_app, name="delete")
def delete_ab_test(call: Call, test: ABTest) -> None:
    """Forget an A/B test and its report."""
    from api.commands import ab_tests

    ab_tests.delete_test(call, test)


@command(keys_app, name="create")
def create_key(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    scope: Annotated[list[KeyScope] | None, typer.Option(help="What it is good for (repeatable) [query].")] = None,
    store: Annotated[list[str] | None, typer.Option(help="Good for this store only (repeatable).")] = None,
    permission: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A permission tag that it holds (repeatable).")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant (for the operator).")] = None,
    may_delegate: Annotated[bool, typer.Option("--may-delegate", help="A user's claim says what is seen.")] = False,
    days: Annotated[float | None, typer.Option(min=0, help="It expires after so many days.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Of each server process.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="At once, in each server process.")] = None,
    tokens_per_request: Annotated[int | None, typer.Option(min=1, help="Of prompt and answer together.")] = None,
) -> None:
    """Make a key. It is printed once and kept nowhere."""
    from api.commands import keys

    body = {
        "name": name,
        "scopes": [one.value for one in scope or [KeyScope.query]],
        "vector_store_ids": store,
        "permissions": permission or [],
        "tenant": tenant,
        "may_delegate": may_delegate,
        "limits": {
            "requests_per_minute": requests_per_minute,
            "concurrent_requests": concurrent_requests,
            "tokens_per_request": tokens_per_request,
        },
    }
    keys.create_key(call, body, days)


@command(keys_app, name="list")
def list_keys(call: Call) -> None:
    """List keys, revoked ones too."""
    from api.commands import keys

    keys.list_keys(call)


@command(keys_app, name="revoke")
def revoke_key(call: Call, key_id: Annotated[str, typer.Argument(metavar="KEY", help="A key's id.")]) -> None:
    """Let a key be good for nothing."""
    from api.commands import keys

    keys.revoke_key(call, key_id)


@command(app)
def files(
    call: Call,
    store: Store,
    state: Annotated[str | None, typer.Option(help="Only those: queued, parsing, completed, failed…")] = None,
) -> None:
    """List the documents of a store."""
    from api.commands import corpus

    corpus.list_files(call, store, state)


@command(app)
def delete(call: Call, store: Store, documents: Documents) -> None:
    """Take documents out of a store."""
    from api.commands import corpus

    corpus.delete_files(call, store, documents)


@command(app)
def retry(call: Call, store: Store, documents: SomeDocuments = None, wait: Wait = True) -> None:
    """Try failed documents again: those named, else all of them."""
    from api.commands import corpus

    corpus.retry_files(call, store, documents or [], wait=wait)


@command(app)
def cancel(call: Call, store: Store, documents: SomeDocuments = None) -> None:
    """Stop work on documents: on those named, else on all."""
    from api.commands import corpus

    corpus.cancel_files(call, store, documents or [])


@command(app)
def search(
    call: Call,
    store: Store,
    question: Question,
    mode: RetrievalMode = None,
    condition: Annotated[str | None, typer.Option("--filter", metavar="JSON", help="A filter on attributes.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=50, help="Hits at most.")] = None,
    generation: Annotated[str | None, typer.Option(help="Ask this generation instead of the live one.")] = None,
) -> None:
    """Show the best hits for a question."""
    from api.commands import ask as commands

    commands.search(
        call, store, question, mode=mode and mode.value, condition=condition, limit=limit, generation=generation
    )


@command(app)
def context(
    call: Call,
    store: Store,
    question: Question,
    model: Model = None,
    window: Annotated[int | None, typer.Option(min=1, help="Tokens of prompt and answer together.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count with this tokenizer, or that of this model alias.")
    ] = None,
    messages: Annotated[bool, typer.Option("--messages", help="Print the prompt instead.")] = False,
) -> None:
    """Show the context that a model would be given, and why."""
    from api.commands import ask as commands

    commands.context(call, store, question, model=model, window=window, tokenizer=tokenizer, messages=messages)


@command(app)
def ask(call: Call, store: Store, question: Question, model: Model = None) -> None:
    """Answer a question from a store, with citations."""
    from api.commands import ask as commands

    commands.ask(call, store, question, model=model)


@command(app)
def models(call: Call) -> None:
    """List the language models."""
    from api.commands import ask as commands

    commands.list_models(call)


@command(eval_app, name="beir")
def eval_beir(
    call: Call,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="corpus.jsonl, queries.jsonl, qrels.tsv")],
    embedder: Annotated[str | None, typer.Option(help="The embedder's alias.")] = None,
    mode: RetrievalMode = None,
    limit_documents: Annotated[int | None, typer.Option(min=1, help="Only the first documents.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch data folder.")] = False,
) -> None:
    """Ingest a set in BEIR's form and measure the ranking of its documents."""
    from api.commands import evaluate

    evaluate.run(
        call,
        folder,
        embedder=embedder,
        mode=mode and mode.value,  # type: ignore[arg-type]
        limit_documents=limit_documents,
        keep=keep,
    )


@command(eval_app, name="compare")
def eval_compare(
    call: Call,
    store: Store,
    questions: Annotated[str, typer.Option(metavar="SET", help="A question set: NAME, NAME@VERSION or id.")],
    a: Annotated[str, typer.Option(metavar="SETTINGS", help="As it is now, say: mode=dense,candidates=50.")] = "",
    b: Annotated[str, typer.Option(metavar="SETTINGS", help="What is compared with it.")] = "",
    split: Annotated[Split | None, typer.Option(help="Only these questions.")] = None,
    measure: Annotated[list[str] | None, typer.Option(help="Of rankings, as nDCG@10 (repeatable).")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Ask the models too, and measure their answers.")] = False,
) -> None:
    """Compare two ways of answering on your own questions."""
    from api.commands import compare

    compare.run(call, store, questions, (a, b), split=split and split.value, measures=measure, answers=answers)


@command(eval_app, name="experiment")
def eval_experiment(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to try: TOML or JSON.")],
    out: Annotated[Path | None, typer.Option(help="The folder of the report [experiment-NAME].")] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="Besides jsonlines: mlflow, wandb (repeatable).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch stores.")] = False,
) -> None:
    """Try every combination of settings on a question set; a table, JSON and an HTML report come of it."""
    from api.commands import experiment

    experiment.run(call, file, out, trackers=tracker or [], keep=keep)


@command(eval_app, name="groundedness")
def eval_groundedness(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines: answer, context (texts), perhaps label.")],
    method: Annotated[str | None, typer.Option(help="words, nli or judge [groundedness.method].")] = None,
) -> None:
    """Check answers against their passages, and the check against people's labels."""
    from api.commands import groundedness

    groundedness.run(call, file, method)


@command(eval_app, name="abstention")
def eval_abstention(
    call: Call,
    store: Store,
    questions: Annotated[str, typer.Option(metavar="SET", help="A question set: NAME, NAME@VERSION or id.")],
    most: Annotated[float, typer.Option(min=0, max=1, help="Answerable questions that may be lost.")] = 0.05,
) -> None:
    """Choose the relevance below which nothing is answered on dev, and see what it does on test."""
    from api.commands import abstention

    abstention.run(call, store, questions, most)


@command(eval_app, name="drift")
def eval_drift(
    call: Call,
    store: Store,
    canaries: Annotated[str | None, typer.Option(metavar="SET", help="Ask these each day; '' for none.")] = None,
    today: Annotated[bool, typer.Option("--today", help="Look at today so far.")] = False,
) -> None:
    """Show what changed in what is asked, found and said, day by day."""
    from api.commands import drift

    drift.run(call, store, canaries, today=today)


@command(questions_app, name="import")
def import_questions(
    call: Call,
    path: Annotated[Path, typer.Argument(metavar="PATH", readable=False, help="JSON lines, or a folder as BEIR's.")],
    name: Annotated[str, typer.Option(help="The set's name; one that is there gets another version.")],
    dev_share: Annotated[float, typer.Option(min=0, max=1, help="Of questions without a split of their own.")] = 0.5,
) -> None:
    """Keep questions as a set."""
    from api.commands import questions

    questions.import_set(call, path, name, dev_share)


@command(questions_app, name="list")
def list_questions(call: Call) -> None:
    """List question sets in all their versions."""
    from api.commands import questions

    questions.list_sets(call)


@command(questions_app, name="export")
def export_questions(
    call: Call, questions: Annotated[str, typer.Argument(metavar="SET", help="NAME, NAME@VERSION or id.")]
) -> None:
    """Print a question set as JSON lines."""
    from api.commands import questions as commands

    commands.export_set(call, questions)


@command(questions_app, name="from-feedback")
def questions_from_feedback(call: Call, store: Store) -> None:
    """Print candidates for a set, as JSON lines, out of what people thought of answers."""
    from api.commands import questions

    questions.from_feedback(call, store)


@command(app)
def move(
    call: Call,
    to_data: Annotated[Path | None, typer.Option(help="A new data folder, catalog and blobs in it.")] = None,
    to_catalog: Annotated[str | None, typer.Option(help="The new catalog: sqlite:///path, postgresql://…")] = None,
    to_blobs: Annotated[str | None, typer.Option(help="The new blob store: file:///folder, s3://…")] = None,
    to_vector_index: Annotated[str | None, typer.Option(help="The new vector index.")] = None,
    to_keyword_index: Annotated[str | None, typer.Option(help="The new keyword index.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give up a move that has not finished.")] = False,
) -> None:
    """Move to another catalog, blob store or index engine. Started again, it goes on where it was."""
    from api.commands import move as commands

    places = {
        "catalog": to_catalog,
        "blobs": to_blobs,
        "vector_index": to_vector_index,
        "keyword_index": to_keyword_index,
    }
    commands.run(call, to_data, places, cancel=cancel)


@command(app, name="export")
def export_store(
    call: Call, store: Store, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, as notes.zip.")]
) -> None:
    """Write a store to one file: documents, chunks and vectors as they are at this moment."""
    from api.commands import archive

    archive.export_store(call, store, file)


@command(app, name="import")
def import_store(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `rag export` wrote.")],
    name: Annotated[str | None, typer.Option(help="The new store's name; else the exported one's.")] = None,
) -> None:
    """Make a store of such a file. Nothing is embedded again."""
    from api.commands import archive

    archive.import_store(call, file, name)


@command(app)
def mcp(call: Call) -> None:
    """Serve tools for models over stdin and stdout (Model Context Protocol)."""
    from api.commands import mcp as commands

    commands.run(call)


@command(app)
def doctor(call: Call) -> None:
    """Show what is installed, what resolves, what is missing, and where every setting came from."""
    from api.commands import doctor as commands

    commands.run(call)


def main() -> None:
    """The entry point."""
    tolerant_streams()
    start_logging()
    end_in_order()
    app()
