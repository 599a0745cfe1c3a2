"""What an evaluation compares: arms, and the question set that they are asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rag.ask import Ask
from rag.catalog.records import Store
from rag.evaluation.questions import Question, Split
from rag.models import Sampling
from rag.pack_settings import Order
from rag.retrieve import Fusion, Mode, SearchOptions

MEASURES = ("nDCG@10", "R@100", "RR@10", "AP", "P@5")
"""Of the ranking of documents, unless a request names others. The first one lists the questions that changed."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Name = Annotated[str, Field(min_length=1, max_length=256)]


class Strict(BaseModel):
    """Settings that somebody wrote: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Arm(Strict):
    """One way of answering. What is not named is as the installation is set up; `vector_store_id` as the evaluation
    says. The model and what follows it matter only where answers are asked for."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
    vector_store_id: _Name | None = None
    generation: _Name | None = None
    """Of the vector store, by its id; unset: the one that is live when the evaluation is asked for."""
    mode: Mode | None = None
    fusion: Fusion | None = None
    dense_weight: _Share | None = None
    depth: Annotated[int, Field(ge=1, le=10_000)] | None = None
    candidates: Annotated[int, Field(ge=1, le=1_000)] | None = None
    min_relevance: _Share | None = None
    order: Order | None = None
    max_passages: Annotated[int, Field(ge=1, le=1_000)] | None = None
    window: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    prompt: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    model: _Name | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None

    def search(self) -> SearchOptions:
        """How it retrieves."""
        return SearchOptions(
            limit=self.candidates,
            mode=self.mode,
            fusion=self.fusion,
            dense_weight=self.dense_weight,
            depth=self.depth,
            min_relevance=self.min_relevance,
            generation=self.generation,
        )

    def ask(self, store: Store, question: Question) -> Ask:
        """A question as this arm asks it. Its kind is one that leaves no trace before it is answered."""
        return Ask(
            stores=(store,),
            messages=({"role": "user", "content": question.text},),
            kind="response",
            query=question.text,
            model=self.model,
            prompt=self.prompt,
            search=self.search(),
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens),
            window=self.window,
            order=self.order,
            max_passages=self.max_passages,
        )


class EvaluationRequest(Strict):
    """What to compare: every arm with the first one, over a question set (by id, by name or as name@version), or one
    split of it. `measures` are of the ranking of documents, by their names in ir-measures; spans, contexts and answers
    are measured where the questions' labels allow it. With `answers`, each arm's model is asked."""

    vector_store_id: _Name
    question_set: _Name
    arms: Annotated[list[Arm], Field(min_length=1, max_length=16)]
    split: Split | None = None
    measures: Annotated[list[_Name], Field(min_length=1, max_length=16)] = list(MEASURES)
    answers: bool = False

    @field_validator("arms")
    @classmethod
    def _names_differ(cls, arms: list[Arm]) -> list[Arm]:
        if len({arm.name for arm in arms}) < len(arms):
            raise ValueError("each arm has a name of its own")
        return arms
