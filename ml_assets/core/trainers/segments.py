"""One model per segment: what a use case declares, and what became of each segment."""

from dataclasses import dataclass

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.names import identifier


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Asks for one model per value of a categorical input, with the model of all rows, the parent, for the rest.

    The parent answers for null, for values that train did not have, for segments with too few rows, and for those whose
    own model is not better. The defaults are judgement.

    Attributes:
        by: the categorical input whose values are the segments.
        minimum_rows: train rows of a segment that gets a model of its own.
        minimum_of_each_class: train rows of the rarer label; not asked of a regression.
        minimum_validation_rows: validation rows, for they decide whether its own model is better.
        confidence: one-sided, that no segment's own model seems to be better by chance; at 0.5 the lower validation
            loss wins as it is.
    """

    by: str
    minimum_rows: int = 2000
    minimum_of_each_class: int = 100
    minimum_validation_rows: int = 200
    confidence: float = 0.95

    def __post_init__(self) -> None:
        identifier(self.by)
        least = min(self.minimum_rows, self.minimum_validation_rows)
        if least < 1 or self.minimum_of_each_class < 0:
            raise InvalidDeclaration(f"{self} asks for less than one row; set its minimums to 1 at least")
        if not 0.5 <= self.confidence < 1:
            raise InvalidDeclaration(f"{self} needs a confidence of at least 0.5 and less than 1")

    def confidence_of_each(self, n_compared: int) -> float:
        """Return the confidence to hold each segment against, so that all of them together have theirs (Bonferroni).

        >>> round(Segments(by="origin", confidence=0.95).confidence_of_each(5), 6)
        0.99
        """
        return self.confidence if self.confidence == 0.5 or n_compared < 2 else 1 - (1 - self.confidence) / n_compared


@dataclass(frozen=True, kw_only=True)
class SegmentOutcome:
    """What became of one segment.

    Attributes:
        value: of the input that the segments go by.
        n_train: its rows of train; ``n_validation`` those of validation.
        has_own_model: whether its own model answers for it; otherwise the parent does.
        parent_loss: the parent's mean loss on its validation rows, in nats or for a regression in squared units of the
            label; None where no model of its own was fitted.
        own_loss: the same of its own model.
        margin: how far its own model's loss must lie below the parent's to be beyond the noise.
        why_parent: why the parent answers; empty where it does not.
    """

    value: str
    n_train: int
    n_validation: int
    has_own_model: bool
    parent_loss: float | None = None
    own_loss: float | None = None
    margin: float | None = None
    why_parent: str = ""
