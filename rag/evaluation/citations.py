"""How good the citations of an answer are: do they name what is there, is everything cited, is every citation needed?

Citation recall and precision are those of ALCE (Gao et al., "Enabling Large Language Models to Generate Text with
Citations", 2023). A sentence is supported when it cites, all that it cites is there, and together it entails the
sentence: recall is the share of such sentences. A citation is precise when its sentence is supported, and it entails
the sentence alone or the others do not without it. ALCE's own script leaves the citations of a sentence with one that
names nothing out of the precision; here they count as wrong, as the paper says, and headings and questions are no
sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.claims import Claim, Marker, claims
from rag.evaluation.entailment import Pair

Entails = Callable[[Sequence[Pair]], list[bool]]


@dataclass(frozen=True)
class CitationQuality:
    """Of one answer, or of several together. Shares in [0, 1], None of nothing."""

    sentences: int
    citations: int
    """Each passage once in a sentence."""
    valid: int
    """Citations of passages that are there."""
    supported: int
    """Sentences that what they cite entails."""
    precise: int
    """Citations that a supported sentence needs, or could do with alone."""

    @property
    def validity(self) -> float | None:
        """The share of citations that name something."""
        return _share(self.valid, self.citations)

    @property
    def recall(self) -> float | None:
        """The share of sentences that are supported."""
        return _share(self.supported, self.sentences)

    @property
    def precision(self) -> float | None:
        """The share of citations that are precise."""
        return _share(self.precise, self.citations)


def judge_citations(
    answer: str, passages: Mapping[int, str], entails: Entails, markers: Sequence[Marker] | None = None
) -> CitationQuality:
    """Judge the citations of `answer`; `markers` as in `claims`. Asks `entails` three times at most."""
    found = claims(answer, markers)
    complete = [claim for claim in found if claim.cited and all(number in passages for number in claim.cited)]
    verdicts = entails([(_together(claim.cited, passages), claim.text) for claim in complete])
    supported = [claim for claim, verdict in zip(complete, verdicts, strict=True) if verdict]
    return CitationQuality(
        sentences=len(found),
        citations=sum(len(claim.cited) for claim in found),
        valid=sum(number in passages for claim in found for number in claim.cited),
        supported=len(supported),
        precise=_precise(supported, passages, entails),
    )


def together(several: Sequence[CitationQuality]) -> CitationQuality:
    """Of several answers, every sentence and citation counting alike. (ALCE averages over answers.)"""
    names = CitationQuality.__dataclass_fields__
    return CitationQuality(**{name: sum(getattr(one, name) for one in several) for name in names})


def _precise(supported: Sequence[Claim], passages: Mapping[int, str], entails: Entails) -> int:
    alone = [(claim, number) for claim in supported if len(claim.cited) > 1 for number in claim.cited]
    enough = entails([(passages[number], claim.text) for claim, number in alone])
    left = [pair for pair, verdict in zip(alone, enough, strict=True) if not verdict]
    without = entails(
        [(_together([n for n in claim.cited if n != number], passages), claim.text) for claim, number in left]
    )
    return sum(len(claim.cited) == 1 for claim in supported) + sum(enough) + sum(not verdict for verdict in without)


def _together(numbers: Sequence[int], passages: Mapping[int, str]) -> str:
    return "\n".join(passages[number] for number in numbers)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
