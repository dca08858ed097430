"""What a use case is: one question a model answers, declared as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from ml_assets.core.compute import Compute
from ml_assets.core.decisions import Decisions
from ml_assets.core.encoding import Output, Task
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import Feature, FeatureView
from ml_assets.core.names import identifier, table_name
from ml_assets.core.search_spaces import DEFAULT_SPACES, SearchSpace
from ml_assets.core.trainers import Trainer, name_of
from ml_assets.core.trainers.segments import Segments

# The slice of a local day that is no feature: its calendar month.
MONTH = "month"
# Judgement: a year of the packaged flights, three times over.
_MACHINE = Compute(cpus=2, memory_gb=8)


@dataclass(frozen=True, kw_only=True)
class Label:
    """The table of outcomes: ``decision_id``, ``partition_on``, ``label``, ``label_known_at``, ``no_label_reason``.

    ``label`` and ``label_known_at`` are null, and ``no_label_reason`` is not, for a decision that never gets one.
    ``label`` is a boolean, or for a regression a number of this ``unit``.
    """

    table: str
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How labelled days before the as-of date become train, validation and test: by time, oldest first.

    ``gap_days`` days before validation, before test and before the as-of date are left out, so that no label of the
    part before was still unknown when a decision of the part after was taken, and that the last day is not short of the
    labels that come late. It is at least 1, and 1 more for each full day that a decision of the use case can lie ahead.
    """

    train_days: int = 365
    validation_days: int = 14
    test_days: int = 21
    gap_days: int = 1
    minimum_train_days: int = 7

    @property
    def days_back(self) -> int:
        """How many days before the as-of date the oldest example can lie."""
        return self.train_days + self.validation_days + self.test_days + 3 * self.gap_days

    @property
    def days_for_whole_parts(self) -> int:
        """How many labelled days it takes until validation and test have their full length, and train at least both.

        >>> SplitRule(validation_days=14, test_days=21, gap_days=1).days_for_whole_parts
        72
        """
        return 2 * (self.validation_days + self.test_days + self.gap_days)


@dataclass(frozen=True, kw_only=True)
class PromotionRule:
    """What a candidate must show on the pinned holdout before it may serve.

    Losses are in nats of log loss. Of a regression, whose unit can be any, what a candidate may lose is a share of the
    other model's RMSE: 0.01 is one hundredth of it.

    Attributes:
        minimum_roc_auc: the floor of ROC AUC, of a classification.
        minimum_r2: the floor of the share of variance explained, of a regression; 0 is as good as the labels' mean.
        maximum_bias: of a regression, how far the mean prediction may lie from the mean label, in standard deviations
            of the holdout's labels. A judgement, for the same reason as the calibration error's.
        maximum_calibration_error: of a classification; a judgement: a holdout of three weeks can have a positive share
            0.1 away from that of the months before through the weather alone.
        confidence: one-sided, of every "beyond the noise" (paired bootstrap over days); at 0.5 a difference counts as
            it is. The baselines must be beaten beyond the noise.
        against_champion: ``better`` asks that a candidate beats the champion beyond the noise. ``not_worse`` refuses it
            only where it is worse beyond the noise: of two equal models the fresher one serves, where what changes from
            week to week matters and a champion that only a clearly better model may replace would grow old.
        may_lose_to_champion_by: with ``not_worse``, how much worse counts as equal, beside the noise.
        most_champion_noise: with ``not_worse``, how much of the noise counts at most: on a small holdout anything is
            within the noise, and many small losses in a row would add up.
        slice_minimum_rows: a slice with fewer rows is not judged.
        slice_minimum_positives: nor, of a classification, one with fewer rows of either class.
        slice_may_lose_log_loss: how much worse than the champion (or, without one, the simple baseline) a slice may
            be, beside the noise.
        slice_may_lose_roc_auc: the same for ROC AUC.
        slice_may_lose_rmse: the same for the RMSE of a regression, as a share of the other model's on the slice.
        maximum_model_mb: of the ONNX model, in 10^6 bytes.
        maximum_one_row_ms: the median time of a call with one row. Generous: a busy machine must refuse nobody.
        maximum_thousand_rows_ms: the same with 1,000 rows.
        maximum_parity_difference: between ONNX and the library, on any row; of a regression in standard deviations of
            the training labels.
        needs_approval: a candidate that passes every gate waits until a person has approved its package.
    """

    minimum_roc_auc: float = 0.6
    maximum_calibration_error: float = 0.1
    minimum_r2: float = 0.0
    maximum_bias: float = 0.1
    confidence: float = 0.95
    against_champion: Literal["better", "not_worse"] = "better"
    may_lose_to_champion_by: float = 0.0
    most_champion_noise: float = 0.01
    slice_minimum_rows: int = 200
    slice_minimum_positives: int = 30
    slice_may_lose_log_loss: float = 0.02
    slice_may_lose_roc_auc: float = 0.03
    slice_may_lose_rmse: float = 0.05
    maximum_model_mb: float = 64.0
    maximum_one_row_ms: float = 50.0
    maximum_thousand_rows_ms: float = 500.0
    maximum_parity_difference: float = 1e-5
    needs_approval: bool = False

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise InvalidDeclaration(
                f"a promotion rule has the confidence {self.confidence}; choose at least 0.5 and less than 1"
            )


@dataclass(frozen=True, kw_only=True)
class RetrainingRule:
    """When a day's evidence asks for a training, and what forbids one; see ``core/retraining.py`` for the weighing.

    Every number is a judgement but ``maximum_age_days``, which ``ml-assets staleness`` measures.

    Attributes:
        cool_down_days: from one training to the next, as-of date to as-of date. A week of labels is the least that can
            tell a new model from the last one. A training that failed is asked for again on the next day.
        budget_trainings: the most trainings in ``budget_days`` days, those that failed included.
        budget_days: how long that is.
        minimum_new_examples: labelled since the champion's training; with fewer, a training would learn the same again.
        minimum_new_share: the same as a share of the examples the champion was fitted on.
        growth_share: as many new ones, of those it was fitted on, ask for a training by themselves. While the history
            is short a model grows better with every month of it, which no curve of models of one size shows.
        most_refusals: candidates refused in a row after which no training is asked for until a person says go on, or
            a candidate is promoted otherwise: what three candidates could not mend, a fourth will not.
        maximum_age_days: how old a champion may grow. Its freshness policy is made of it; a check holds it against the
            measured staleness curve, which takes its place in the decision once there is one.
        staleness_tolerance: the share by which the loss of a model may exceed a fresh one's, by age alone.
    """

    cool_down_days: int = 7
    budget_trainings: int = 4
    budget_days: int = 28
    minimum_new_examples: int = 1000
    minimum_new_share: float = 0.01
    growth_share: float = 0.5
    most_refusals: int = 3
    maximum_age_days: int = 28
    staleness_tolerance: float = 0.01

    def __post_init__(self) -> None:
        least = {
            "cool_down_days": 0,
            "budget_trainings": 1,
            "budget_days": 1,
            "minimum_new_examples": 0,
            "minimum_new_share": 0,
            "growth_share": self.minimum_new_share,
            "most_refusals": 1,
            "maximum_age_days": max(1, self.cool_down_days),
        }
        low = [f"{name}={getattr(self, name)} (at least {n})" for name, n in least.items() if getattr(self, name) < n]
        if low:
            raise InvalidDeclaration(f"a retraining rule has {', '.join(low)}: no training could ever keep to it")
        if not 0 < self.staleness_tolerance < 1:
            raise InvalidDeclaration(
                f"a retraining rule tolerates a staleness of {self.staleness_tolerance}; it is a share of the loss: "
                "choose one above 0 and below 1, such as 0.01"
            )


@dataclass(frozen=True, kw_only=True)
class UseCase:
    """One question a model answers. ``features`` names the feature views it reads, all of their columns.

    ``slices`` names the columns of which no value may fall below its floor: features of few values, and ``month``.
    Unless given, the categorical features. ``trainer`` is ``lightning``, ``sklearn``, ``keras``, or a Trainer (an
    object or its class) declared in the use case's own file; see docs/own_trainer.md.

    ``segments`` asks for one model per value of a categorical input, with the model of all rows as the parent of the
    rest. They have the hyperparameters of the parent, and a study tunes the parent alone.

    ``compute`` is the machine that its training set, its trainings and its searches get where each step has one of its
    own, as on Kubernetes: ``Compute(cpus=4, memory_gb=32, gpus=1)``.

    A hyperparameter that it names is pinned: no study varies it. ``search_space`` is what a study varies; that of its
    trainer unless given, and ``{}`` for a model that is never tuned.
    """

    name: str
    question: str
    owners: tuple[str, ...]
    task: Task
    decisions: Decisions
    label: Label
    features: tuple[str, ...]
    trainer: str | Trainer | type[Trainer] = "lightning"
    hyperparameters: Mapping[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    search_space: SearchSpace | None = None
    segments: Segments | None = None
    baseline_features: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    split: SplitRule = SplitRule()
    promotion: PromotionRule = PromotionRule()
    retraining: RetrainingRule = RetrainingRule()
    compute: Compute = _MACHINE
    seed: int = 13

    def __post_init__(self) -> None:
        identifier(self.name)
        table_name(self.decisions.table)
        table_name(self.label.table)
        twice = sorted(set(self.search_space or ()) & set(self.hyperparameters))
        if twice:
            raise InvalidDeclaration(
                f"{self.name} pins {twice} in hyperparameters and lets search_space vary them; name each in one of both"
            )
        lead = self.decisions.longest_lead
        least = 1 + lead // timedelta(days=1)
        if self.split.gap_days < least:
            raise InvalidDeclaration(
                f"{self.name} decides up to {lead} ahead with {self.split.gap_days} days between the "
                f"parts of its split; set gap_days to at least {least}, or it trains on what is not known by its test"
            )

    @property
    def output(self) -> Output:
        """What its model answers."""
        return Output(task=self.task, unit=self.label.unit)

    @property
    def examples_table(self) -> str:
        """The table its examples are written to."""
        return f"examples.{self.name}"

    @property
    def predictions_table(self) -> str:
        """The table its predictions are written to."""
        return f"predictions.{self.name}"

    @property
    def shadow_table(self) -> str:
        """The table of what other models than the champion would have predicted."""
        return f"predictions.{self.name}_shadow"

    @property
    def served_table(self) -> str:
        """The table of what its models read when they predicted, of a sample of decisions."""
        return f"predictions.{self.name}_served"

    def key(self, stage: str) -> list[str]:
        """Return the asset key of one of its stages: whose it is, then what it is.

        The stages are examples, training_set, tuning, ablation, staleness, candidate, champion, predictions, drift,
        performance, skew, alarms, report, retraining and ml_test_score.
        """
        return [self.name, stage]

    @property
    def tuned_space(self) -> SearchSpace:
        """What a study of it varies: its own search space, or its trainer's without what it pins."""
        if self.search_space is not None:
            return self.search_space
        of_trainer = DEFAULT_SPACES.get(name_of(self.trainer), {})
        return {name: dimension for name, dimension in of_trainer.items() if name not in self.hyperparameters}

    def views(self, declared: Mapping[str, FeatureView]) -> Sequence[FeatureView]:
        """Return the feature views it reads, in its order; raise InvalidDeclaration for one nobody declares."""
        unknown = [name for name in self.features if name not in declared]
        if unknown:
            raise InvalidDeclaration(
                f"{self.name} reads the feature views {unknown}, which no yml declares; there are {sorted(declared)}"
            )
        return [declared[name] for name in self.features]

    def inputs(self, declared: Mapping[str, FeatureView]) -> tuple[Feature, ...]:
        """Return the columns its model reads, in a fixed order; raise InvalidDeclaration where two have one name."""
        features = tuple(feature for view in self.views(declared) for feature in view.features)
        names = [feature.name for feature in features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidDeclaration(f"{self.name} would read two features each called {twice}; rename one of each")
        categorical = [feature.name for feature in features if feature.kind == "categorical"]
        if self.segments and self.segments.by not in categorical:
            raise InvalidDeclaration(
                f"{self.name} segments by {self.segments.by!r}, which is none of its categorical features {categorical}"
            )
        return features
