"""How much of OpenAI's pinned specification our own OpenAPI document says: `python -m tests.conformance.score [-v]`.

    score = 1 - problems / properties, over every operation of a group

A property is a parameter, a field of a request's body or a field of the body of a success, at whatever depth and in
each branch of a union; a body without fields counts as one. A problem is whatever differs: an operation, parameter,
field or branch that is not there (with all that is in it), another type, enumeration, nullability, or whether it is
required. Bodies of errors add problems and no properties. What we have besides is no problem where it is optional in a
request, or a field of an answer. Bounds, formats, defaults, descriptions and media types are not compared.
What a retrieval backend does not serve is left out, by `tests.conformance.exclusions`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.app import create_app
from rag.settings import Settings
from tests.conformance.exclusions import excluded
from tests.conformance.shapes import Branch, Document, Shape, resolved, shape_of
from tests.data import pinned_specification

GROUPS = {
    "Files": "/files",
    "Vector Stores": "/vector_stores",
    "Embeddings": "/embeddings",
    "Models": "/models",
    "Chat": "/chat",
    "Responses": "/responses",
}
LEAST = {"Files": 0.98, "Vector Stores": 0.98, "Embeddings": 0.98, "Models": 0.98, "Chat": 0.95, "Responses": 0.95}
"""The scores to reach."""
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass
class Score:
    """What one group or operation came to."""

    properties: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return 1 - len(self.problems) / max(1, self.properties)


def our_document() -> Document:
    """The OpenAPI document that the server serves."""
    return create_app(Settings(embedder="toy-384")).openapi()


def operations(document: Document) -> Iterator[tuple[str, str]]:
    """Method and path of every operation."""
    for path, item in document["paths"].items():
        yield from ((method, path) for method in METHODS if method in item)


def score_group(pinned: Document, ours: Document, group: str) -> Score:
    """The score of a group."""
    compared = Comparison(pinned, ours)
    for method, path in operations(pinned):
        if path.startswith(GROUPS[group]):
            compared.operation(method, path)
    return compared.score


class Comparison:
    """Counts the properties of pinned operations and what differs in ours."""

    def __init__(self, pinned: Document, ours: Document) -> None:
        self.score = Score()
        self._pinned = pinned
        self._ours = ours
        self._counts = True

    def operation(self, method: str, path: str) -> None:
        """Compare one operation."""
        name = f"{method.upper()} {path}"
        if excluded(name):
            return
        theirs, ours = self._pinned["paths"][path][method], self._our_operation(method, path)
        if ours is None:
            self._problem(name, "the operation is not there")
        self._parameters(name, theirs, ours or {})
        for place, body in (("request", "requestBody"), *((s, s) for s in theirs["responses"])):
            if body == "requestBody":
                self._contents(f"{name} request", theirs.get(body), (ours or {}).get(body), answer=False)
                continue
            self._counts = place.startswith("2")
            found = _response(ours or {}, place)
            self._contents(f"{name} {place}", theirs["responses"][place], found, answer=True)
            self._counts = True

    def _our_operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        wanted = re.sub(r"{.*?}", "{}", f"/v1{path}")
        for ours, item in self._ours["paths"].items():
            if re.sub(r"{.*?}", "{}", ours) == wanted and method in item:
                return dict(item[method])
        return None

    def _parameters(self, name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        mine = {(p["in"], p["name"]): p for p in ours.get("parameters", [])}
        for parameter in theirs.get("parameters", []):
            place = f"{name} {parameter['in']}.{parameter['name']}"
            if excluded(place):
                continue
            self._property()
            found = mine.pop((parameter["in"], parameter["name"]), None)
            if found is None:
                self._problem(place, "is not there")
                continue
            if bool(parameter.get("required")) != bool(found.get("required")):
                self._problem(place, "is required in one of both only")
            self._schema(place, parameter["schema"], found["schema"], (), answer=False)
        for where, what in mine:
            if mine[where, what].get("required"):
                self._problem(f"{name} {where}.{what}", "is required by us only")

    def _contents(self, place: str, theirs: Any, ours: Any, *, answer: bool) -> None:
        theirs, ours = resolved(self._pinned, theirs)[0] or {}, resolved(self._ours, ours)[0] or {}
        contents, mine = theirs.get("content", {}), ours.get("content", {})
        for media, content in contents.items():
            found = mine.get(media)
            if found is None and len(contents) == len(mine) == 1:
                (found,) = mine.values()
            where = f"{place} stream" if media == "text/event-stream" else place
            if excluded(where):
                continue
            fields = any(branch.properties for branch in shape_of(self._pinned, content["schema"]).branches)
            if not fields:
                self._property()
            self._schema(where, content["schema"], found and found.get("schema"), (), answer=answer)

    def _schema(self, place: str, theirs: Any, ours: Any, within: Sequence[str], *, answer: bool) -> None:
        """Compare two schemas; `ours` None where there is none."""
        wanted = shape_of(self._pinned, theirs)
        found = None if ours is None else shape_of(self._ours, ours)
        several = len(wanted.branches) > 1
        left = [] if found is None else list(found.branches)
        if found is None:
            self._problem(place, "has no schema")
        elif wanted.nullable != found.nullable:
            self._problem(place, "is null in one of both only")
        for branch in wanted.branches:
            where = f"{place}<{branch.name or branch.kind}>" if several else place
            if excluded(where):
                match = _best(self._pinned, self._ours, branch, left) if several else None
                left = [other for other in left if other is not match]
                continue
            if branch.name and branch.name in within:
                left = [other for other in left if other.name not in (branch.name, _best_name(branch, left))]
                continue
            match = _best(self._pinned, self._ours, branch, left)
            left = [other for other in left if other is not match]
            if match is None and found is not None:
                kinds = ", ".join(sorted({other.kind for other in found.branches}))
                self._problem(where, f"is no {branch.kind} of ours ({kinds})")
            self._branch(where, branch, match, (*within, branch.name), answer=answer)
        if answer:
            for extra in left:
                self._problem(place, f"may be {extra.name or extra.kind} with us only")

    def _branch(self, place: str, theirs: Branch, ours: Branch | None, within: Sequence[str], *, answer: bool) -> None:
        if ours is not None and theirs.enum != ours.enum:
            self._problem(place, f"is one of {_shown(theirs.enum)}; with us of {_shown(ours.enum)}")
        for name, schema in theirs.properties.items():
            where = f"{place}.{name}"
            if excluded(where):
                continue
            self._property()
            found = None if ours is None else ours.properties.get(name)
            if found is None:
                self._problem(where, "is not there")
                self._nothing(where, schema, within)
                continue
            if (name in theirs.required) != (ours is not None and name in ours.required):
                self._problem(where, "is required in one of both only")
            self._schema(where, schema, found, within, answer=answer)
        if ours is not None and not answer:
            for name in sorted(ours.required - theirs.properties.keys()):
                self._problem(f"{place}.{name}", "is required by us only")
        for what, their, our in (
            ("[]", theirs.items, ours and ours.items),
            ("{}", theirs.values, ours and ours.values),
        ):
            if their is not None and ours is not None:
                self._schema(f"{place}{what}", their, our, within, answer=answer)
            elif their is not None:
                self._nothing(f"{place}{what}", their, within)

    def _nothing(self, place: str, theirs: Any, within: Sequence[str]) -> None:
        """All that is in a schema of which we have nothing."""
        wanted = shape_of(self._pinned, theirs)
        for branch in wanted.branches:
            where = f"{place}<{branch.name or branch.kind}>" if len(wanted.branches) > 1 else place
            if not excluded(where) and not (branch.name and branch.name in within):
                self._branch(where, branch, None, (*within, branch.name), answer=True)

    def _property(self) -> None:
        self.score.properties += self._counts

    def _problem(self, place: str, what: str) -> None:
        self.score.problems.append(f"{place}: {what}")


def _response(operation: Mapping[str, Any], status: str) -> Any:
    responses = operation.get("responses", {})
    return responses.get(status) or responses.get(f"{status[0]}XX") or responses.get("default")


def _best(pinned: Document, ours: Document, branch: Branch, left: Sequence[Branch]) -> Branch | None:
    """Of our branches, the one that is like theirs: the same kind, and among objects the same tag or most fields."""
    alike = [other for other in left if other.kind == branch.kind]
    if branch.kind == "array":
        items = _kinds(shape_of(pinned, branch.items or {}))
        return next((a for a in alike if _kinds(shape_of(ours, a.items or {})) == items), alike[0] if alike else None)
    if branch.kind != "object":
        return alike[0] if alike else None
    if branch.tag is not None:
        alike = [other for other in alike if other.tag == branch.tag]
    fields = branch.properties.keys()
    return max(alike, key=lambda other: -len(other.properties.keys() ^ fields), default=None)


def _best_name(branch: Branch, left: Sequence[Branch]) -> str | None:
    """The name of our object with the same fields."""
    return next((other.name for other in left if other.properties.keys() == branch.properties.keys()), None)


def _kinds(shape: Shape) -> frozenset[str]:
    return frozenset(branch.kind for branch in shape.branches)


def _shown(values: frozenset[str] | None) -> str:
    return "anything" if values is None else ", ".join(sorted(values))


def main(arguments: Sequence[str]) -> int:
    """Print the scores, with `-v` every problem. Not 0 where one is too low."""
    pinned, ours = pinned_specification(), our_document()
    scores = {group: score_group(pinned, ours, group) for group in GROUPS}
    for group, score in scores.items():
        if "-v" in arguments:
            print(*(f"  {problem}" for problem in score.problems), sep="\n")
        least = LEAST[group]
        counted = f"{score.properties} properties, {len(score.problems)} problems"
        print(f"{group:14} {score.share:7.1%}  (at least {least:.0%}; {counted})")
    return int(any(score.share < LEAST[group] for group, score in scores.items()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
