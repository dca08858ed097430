"""What is told of one prediction that was traced: model, training set, views with their rows, outcome, replay."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from ml_assets.core.provenance import Cell, Origin
from ml_assets.core.served import Value
from ml_assets.core.skew import is_same


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The row of ``predictions.<use_case>``."""

    decision_id: str
    partition_on: date
    decided_at: datetime
    prediction: float
    model_version: str
    run_id: str
    predicted_at: datetime


@dataclass(frozen=True, kw_only=True)
class InCharge:
    """The ledger entry that put the model in charge of the decision."""

    sequence: int
    action: str
    effective_from: date
    reason: str
    n_gates: int
    recorded_at: datetime
    recorded_by: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the package says of itself. ``package_hash`` is that of its manifest and the one the ledger names."""

    version: str
    package_hash: str
    as_of: date
    trainer: str
    seed: int
    code_version: str
    environment_hash: str
    parent_version: str | None
    n_features: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The training set: its files have the hashes its manifest names. ``has_decision`` would be a leak."""

    fingerprint: str
    first_day: date
    last_day: date
    n_train: int
    n_validation: int
    n_test: int
    has_decision: bool


@dataclass(frozen=True, kw_only=True)
class FeatureValue:
    """A feature as the model read it, and as the join gives it from the feature tables now."""

    name: str
    value: Value
    recomputed: Value
    unit: str | None

    @property
    def is_identical(self) -> bool:
        """Whether both are the same, type and last bit."""
        return is_same(self.value, self.recomputed)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A row of a feature table that a feature was made from. ``age_hours`` is how old it was at the decision."""

    known_at: datetime
    age_hours: float
    values: Mapping[str, Cell]
    origins: tuple[Origin, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The events of one window, ``(after, until]``, that a window view counted."""

    hours: float
    after: datetime
    until: datetime
    n_events: int


@dataclass(frozen=True, kw_only=True)
class TracedView:
    """One feature view as the decision saw it. Of a window view the sources are its newest few events."""

    name: str
    table: str
    kind: str
    max_age_hours: float
    entity: Mapping[str, Cell]
    features: tuple[FeatureValue, ...]
    windows: tuple[Window, ...]
    sources: tuple[Source, ...]
    made_from: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether every feature is recomputed to the last bit."""
        return all(feature.is_identical for feature in self.features)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The label, when it became known, or why there is none (yet)."""

    label: Value
    known_at: datetime | None
    no_label_reason: str | None


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The example scored again by the package. ``among`` is how many examples were scored with it.

    A model can give a row other last bits alone than in a large batch, so that the day's batch is tried as well.
    """

    prediction: float
    replayed: float
    among: int

    @property
    def is_identical(self) -> bool:
        """Whether it is the same number, to the last bit."""
        return self.prediction == self.replayed


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Everything behind one prediction.

    ``read_from`` says where the features were taken from: the record of what was read where the decision is in the
    day's sample, else the example as it is stored by now.
    """

    use_case: str
    question: str
    prediction: Prediction
    in_charge: InCharge
    model: Model
    training_set: Trained
    read_from: str
    views: tuple[TracedView, ...]
    outcome: Outcome
    replay: Replay

    @property
    def changed_views(self) -> tuple[str, ...]:
        """The views that give something else by now than the model read."""
        return tuple(view.name for view in self.views if not view.is_identical)
