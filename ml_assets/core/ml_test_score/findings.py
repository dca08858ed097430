"""What a test of the rubric is, what it found, and how many points that is worth.

Breck, Cai, Nielsen, Salib and Sculley, The ML Test Score: A Rubric for ML Production Readiness and Technical Debt
Reduction (IEEE Big Data 2017): a point for a test that runs by itself and again and again, half a point for one that a
person has carried out with a documented result, and the score is the smallest of the four sections' sums. Stricter than
the paper, a test whose result is bad earns nothing here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Section = Literal["data", "model", "infrastructure", "monitoring"]
SECTIONS: tuple[Section, ...] = ("data", "model", "infrastructure", "monitoring")
N_TESTS_OF_A_SECTION = 7
Outcome = Literal["automated", "manual", "none"]

_MOST_TOLD = 5
_S = TypeVar("_S", contravariant=True)
# What the paper calls a system by its score: the first bound that the score does not exceed.
_READINESS = (
    (0.0, "more of a research project than a productionized system"),
    (1.0, "not untested, but serious holes in its reliability are possible"),
    (2.0, "a first pass at productionization, in need of more"),
    (3.0, "reasonably tested, with more that could be automated"),
    (5.0, "strong automated testing and monitoring, fit for what is critical"),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one test found: how it was carried out, none where it does not hold, and the sentence that says why."""

    outcome: Outcome
    evidence: str

    @property
    def points(self) -> float:
        """What the paper gives for it.

        >>> Finding(outcome="manual", evidence="reviewed by Ada").points
        0.5
        """
        return {"automated": 1.0, "manual": 0.5, "none": 0.0}[self.outcome]


def automated(is_held: bool, evidence: str) -> Finding:
    """Return the finding of a check that needs nobody."""
    return Finding(outcome="automated" if is_held else "none", evidence=evidence)


def by_hand(is_held: bool, evidence: str) -> Finding:
    """Return the finding of a check on what a person has done and recorded."""
    return Finding(outcome="manual" if is_held else "none", evidence=evidence)


def listed(broken: Sequence[str]) -> str:
    """Say what is wrong, the first few in words.

    >>> listed(["a is null", "b is null"])
    'a is null; b is null'
    """
    told = "; ".join(broken[:_MOST_TOLD])
    return f"{told}; and {len(broken) - _MOST_TOLD} more" if len(broken) > _MOST_TOLD else told


@dataclass(frozen=True, kw_only=True)
class RubricTest(Generic[_S]):
    """One of the 28 tests.

    Attributes:
        section: which of the four.
        number: its place there, 1 to 7, as in the paper.
        name: what must be true, in the words of the paper or fewer.
        how: what the check reads and when it holds.
        fault: the fault that takes the point away; a test of this project seeds it.
        hands: what of it a person does, empty where nobody has to.
        is_reviewed: whether it asks for the record of a person's review.
        check: carries it out.
    """

    section: Section
    number: int
    name: str
    how: str
    fault: str
    hands: str = ""
    is_reviewed: bool = False
    check: Callable[[_S], Finding]

    @property
    def key(self) -> str:
        """What it is called wherever a name is needed: ``data_1``."""
        return f"{self.section}_{self.number}"


def readiness(score: float) -> str:
    """Say what the paper calls a system with this score.

    >>> readiness(2.5), readiness(5.5)
    ('reasonably tested, with more that could be automated', 'exceptional automated testing and monitoring')
    """
    words = (words for bound, words in _READINESS if score <= bound)
    return next(words, "exceptional automated testing and monitoring")
