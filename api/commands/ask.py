"""Questions: `search`, `context`, `ask`; and the `models` that answer."""

from __future__ import annotations

import json
import sys
from typing import Any

from api.client import Json
from api.commands.call import Call, open_client
from api.commands.output import harmless, note, print_json, print_table, print_text
from indexes.errors import ChangeRequest

_SNIPPET = 400
"""Characters of a hit that are shown."""
_QUOTE = 100
"""Characters of a citation's quote that are shown."""


def search(
    call: Call,
    store: str,
    question: str,
    *,
    mode: str | None,
    condition: str | None,
    limit: int | None,
    generation: str | None = None,
) -> None:
    """The best hits, one chunk each."""
    body = _given(query=question, mode=mode, filters=_filter(condition), max_num_results=limit, generation=generation)
    with open_client(call) as client:
        found = client.search(store, body)
    if call.json:
        print_json(found)
        return
    if not found["data"]:
        print_text("Nothing was found.")
    for number, hit in enumerate(found["data"], 1):
        scores = hit["scores"]
        legs = ", ".join(f"{leg} {scores[leg]:.3f}" for leg in ("dense", "keyword", "fused") if scores[leg] is not None)
        print_text(f"{number}. {_place(hit)}  relevance {hit['score']:.2f} ({legs})")
        print_text(f"   {_shortened(hit['content'][0]['text'])}\n")


def context(
    call: Call,
    store: str,
    question: str,
    *,
    model: str | None,
    window: int | None,
    tokenizer: str | None,
    messages: bool,
) -> None:
    """The packed context: its passages and ledger, or the prompt itself."""
    with open_client(call) as client:
        found = client.context(store, _given(question=question, model=model, window=window, tokenizer=tokenizer))
    if call.json:
        print_json(found["messages"] if messages else found)
        return
    if messages:
        for message in found["messages"]:
            print_text(f"--- {message['role']}\n{message['content']}")
        return
    for passage in found["passages"]:
        print_text(f"[{passage['number']}] {_place(passage)}  {passage['tokens']} tokens")
        print_text(f"{passage['text']}\n")
    _print_ledger(found["ledger"])
    if not found["grounded"]:
        print_text("Nothing in the store is relevant to the question.")


def _print_ledger(ledger: Json) -> None:
    kind = "exact" if ledger["exact"] else "an upper bound"
    print_text(
        f"Window {ledger['window']:,} tokens ({ledger['tokenizer']}, {kind}): prompt {ledger['prompt_tokens']:,}, kept "
        f"for the answer {ledger['reserved_tokens']:,}."
    )
    rows = (
        [e["chunk_id"], e["fate"], e["reason"], e["passage"] or "", f"{e['relevance']:.2f}", f"{e['fused']:.3f}"]
        for e in ledger["entries"]
    )
    print_table(["CHUNK", "FATE", "REASON", "PASSAGE", "RELEVANCE", "FUSED"], rows)


def ask(call: Call, store: str, question: str, *, model: str | None) -> None:
    """The answer as it comes, then its citations."""
    with open_client(call) as client:
        body = {
            "model": model or client.status()["model"],
            "vector_store_ids": [store],
            "messages": [{"role": "user", "content": question}],
        }
        text, end = "", {}
        for event in client.chat(body):
            delta = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if delta:
                text += delta
                _show_delta(call, delta)
            if "citations" in event:
                end = {name: event[name] for name in ("citations", "grounded", "removed_markers")}
    if call.json:
        print_json({"event": "end", "text": text, "model": body["model"], **end}, one_line=True)
        return
    print_text()
    _print_citations(end)


def _show_delta(call: Call, delta: str) -> None:
    if call.json:
        print_json({"event": "delta", "text": delta}, one_line=True)
    else:
        sys.stdout.write(harmless(delta))
        sys.stdout.flush()


def _print_citations(end: Json) -> None:
    cited: dict[int, list[Json]] = {}
    for citation in end.get("citations", []):
        spans = cited.setdefault(citation["number"], [])
        if all((citation["start"], citation["end"]) != (span["start"], span["end"]) for span in spans):
            spans.append(citation)
    for number, spans in sorted(cited.items()):
        print_text(f"[{number}] {_place(spans[0])}")
        for span in spans:
            place = f"characters {span['start']:,} to {span['end']:,}"
            print_text(f"    {place}: {_shortened(span['quote'], _QUOTE)}")
    if not end.get("grounded", True):
        note("The answer stands on nothing in the store.")
    for marker in end.get("removed_markers", []):
        note(f"A marker that names no passage was taken out: {marker['raw']}")


def list_models(call: Call) -> None:
    """The language models that may be named."""
    with open_client(call) as client:
        models = client.models()
    if call.json:
        print_json(models)
        return
    rows = ([m["id"], m["owned_by"], m["context_window"], m["max_output_tokens"]] for m in models)
    print_table(["MODEL", "PROVIDER", "WINDOW", "OUTPUT"], rows)


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _filter(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ChangeRequest(
            f'The filter is not JSON ({error}). An example: \'{{"type": "eq", "key": "lang", "value": "en"}}\'.',
            code="invalid_filter",
            param="filter",
        ) from error


def _place(hit: Json) -> str:
    """Where something stands, for a person: title or file, headings, page."""
    parts = [hit["title"] or hit["filename"]]
    parts += [heading for heading in hit["heading_path"] if heading != hit["title"]]
    page = f", page {hit['page']}" if hit["page"] else ""
    return f"{' › '.join(parts)}{page} ({hit['filename']})"


def _shortened(text: str, most: int = _SNIPPET) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most].rsplit(' ', 1)[0]} …"
