"""The seven tests of model development."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.evaluation import Floats, Metrics, constant_log_loss
from ml_assets.core.ml_test_score.findings import Finding, RubricTest, automated, by_hand, listed
from ml_assets.core.ml_test_score.reviews import standing_review
from ml_assets.core.ml_test_score.subject import FEWEST_LABELLED_DAYS, Subject
from ml_assets.core.monitored import PERFORMANCE, SHADOWS, SLICES
from ml_assets.core.performance import pool_histograms
from ml_assets.core.promotion import GATES
from ml_assets.core.registry import newest
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.retraining import judge_declared_age
from ml_assets.core.spec import MONTH
from ml_assets.core.staleness_curves import newest_curve
from ml_assets.core.tasks import meaning_of
from ml_assets.core.tuned_parameters import newest_tuned_parameters

# Judgements. A holdout of weeks and the weeks that follow differ by the weather alone.
_ROC_AUC_APART, _RMSE_APART = 0.1, 0.5
_FEWEST_TRIALS = 10
_OLDEST_CURVE = timedelta(days=365)
_FEWEST_ROWS_OF_A_SLICE, _FEWEST_POSITIVES = 200, 30
_RMSE_OF_A_SLICE = 2.0
# How much more, or less, a group may be told than what comes true for it, beside what holds for all.
_GAP_OF_A_GROUP = 0.1
_STANDARD_ERRORS = 3.0


def spec_is_reviewed(subject: Subject) -> Finding:
    """Look for a person who reviewed the code of the champion, or approved its very package."""
    entry = subject.in_charge
    approval = newest(subject.ledger, "approve", entry.version, entry.package_hash)
    if approval:
        return by_hand(
            True,
            f"{approval.recorded_by} approved {entry.version} on {approval.recorded_at:%Y-%m-%d}: {approval.reason}",
        )
    code = subject.champion.manifest.recipe.code_version
    review = standing_review(subject.store, subject.use_case.name, "model_1", code_version=code, day=subject.day)
    if review is None:
        return by_hand(
            False, f"nobody has approved {entry.version}, or recorded a review of the code {code[:12]} that shaped it"
        )
    return by_hand(
        True, f"{review.reviewed_by} reviewed the code {code[:12]} on {review.reviewed_at:%Y-%m-%d}: {review.finding}"
    )


def offline_and_online_agree(subject: Subject) -> Finding:
    """Hold what came true of the champion's predictions beside its holdout, and its gain over each baseline, too."""
    days = subject.of_champion(PERFORMANCE)
    days = days.filter(pc.field("n_labelled") > 0) if days.num_rows else days
    if days.num_rows < FEWEST_LABELLED_DAYS:
        return automated(
            False, f"only {days.num_rows} days of the champion have labels; it takes {FEWEST_LABELLED_DAYS}"
        )
    holdout = subject.champion.metrics.holdout
    online, offline, apart, words = _headline(days, holdout)
    gains = list(_gains(subject))
    if online is None or offline is None or not gains:
        return automated(
            False, f"{words} or the gain over the baselines cannot be computed on {days.num_rows} labelled days"
        )
    is_held = abs(online - offline) <= apart and all((one.offline > 0) == (one.online > 0) for one in gains)
    told = ", ".join(
        f"over the {one.name} baseline {one.online:+.4f} online and {one.offline:+.4f} offline" for one in gains
    )
    return automated(
        is_held,
        f"over {days.num_rows} labelled days {words} is {online:.4f}, on the holdout {offline:.4f} (at most "
        f"{apart:.3g} apart); the {meaning_of(subject.use_case.task).loss.words} gained {told}",
    )


def hyperparameters_are_tuned(subject: Subject) -> Finding:
    """Look for a study that varied all that is not pinned, and whether the champion has what it found."""
    space = subject.use_case.tuned_space
    tuned = newest_tuned_parameters(subject.store, subject.use_case.name, subject.day)
    if tuned is None or not space:
        return by_hand(False, "no study has searched its hyperparameters" if space else "its search space is empty")
    tried = {name: {trial.parameters.get(name) for trial in tuned.trials} for name in space}
    complete = [trial for trial in tuned.trials if trial.state == "complete"]
    absent = sorted(name for name, values in tried.items() if len(values) < 2)
    recipe = subject.champion.manifest.recipe
    best = dict(tuned.parameters)
    is_used = dict(recipe.hyperparameters) == best or not tuned.beats_defaults or subject.in_charge.as_of < tuned.as_of
    told = (
        f"the study as of {tuned.as_of} completed {len(complete)} trials over {', '.join(sorted(space))}: validation "
        f"loss {tuned.loss:.4f}, with the defaults "
        f"{'unknown' if tuned.default_loss is None else f'{tuned.default_loss:.4f}'}"
    )
    if absent:
        told += f"; it did not vary {', '.join(absent)}"
    if not is_used:
        told += f"; the champion {subject.in_charge.version} was trained with others"
    return by_hand(not absent and is_used and len(complete) >= _FEWEST_TRIALS, told)


def staleness_is_known(subject: Subject) -> Finding:
    """Look for the curve of what age costs, which every decision heeds, and for the daily scores of older models."""
    curve = newest_curve(subject.store, subject.use_case.name, subject.day)
    if curve is None:
        return by_hand(False, "no staleness curve has been measured")
    if subject.day - curve.as_of > _OLDEST_CURVE:
        return by_hand(False, f"the newest staleness curve is of {curve.as_of}, more than a year ago")
    told = "; ".join(judge_declared_age(curve, subject.use_case.retraining).reasons)
    shadows = subject.of_champion(SHADOWS)
    older = shadows.filter(pc.field("role") == "previous_1") if shadows.num_rows else shadows
    if not older.num_rows:
        return by_hand(True, f"{told}; no older model was scored beside the champion")
    said = older["explanation"][-1].as_py()
    return automated(
        True, f"{told}; the champion before is scored beside it every day, on {older.num_rows} days by now: {said}"
    )


def simpler_is_not_better(subject: Subject) -> Finding:
    """Hold the champion against the baselines: in the gates of its promotion, and on what it served since."""
    broken = list(_not_passed(subject, "beats_"))
    shadows = subject.of_champion(SHADOWS)
    newest_of = {row["role"]: row for row in shadows.to_pylist() if row["role"].startswith("baseline:")}
    broken += [row["explanation"] for row in newest_of.values() if row["verdict"] == "worse"]
    if not newest_of:
        broken.append("no baseline is scored beside what it serves")
    if broken:
        return automated(False, listed(broken))
    passed = [gate.detail for gate in subject.promotion.gates if gate.name.startswith("beats_")]
    return automated(True, "; ".join([*passed[-1:], *(row["explanation"] for row in newest_of.values())]))


def slices_are_good(subject: Subject) -> Finding:
    """Hold every slice: in the gates of the promotion, and what came true of each against knowing nothing but it."""
    broken = list(_not_passed(subject, "no_slice_loses_"))
    slices = [one for one in _pooled_slices(subject) if one.is_large(subject.champion.metrics.holdout)]
    overall = _overall_rmse(slices)
    rule = subject.use_case.promotion
    for one in slices:
        if one.rmse is not None:
            if one.rmse > _RMSE_OF_A_SLICE * overall:
                broken.append(f"{one.name}: RMSE {one.rmse:.4g}, of all {overall:.4g}")
            continue
        loss, error = one.loss_beside_its_mean()
        if loss - _STANDARD_ERRORS * error > rule.slice_may_lose_log_loss:
            broken.append(f"{one.name}: log loss {loss:.4f} above that of its share of positives, noise {error:.4f}")
    if not slices:
        broken.append(f"no slice has {_FEWEST_ROWS_OF_A_SLICE} labelled decisions yet")
    if broken:
        return automated(False, listed(broken))
    gates = [gate.detail for gate in subject.promotion.gates if gate.name.startswith("no_slice_loses_")]
    return automated(
        True,
        f"{gates[0]}; since then none of {len(slices)} slices is worse than knowing its mean alone, beyond the noise",
    )


def nobody_is_left_behind(subject: Subject) -> Finding:
    """Hold what each group was told against what came true for it, beside what holds for all groups together."""
    groups = [
        one for one in _pooled_slices(subject) if one.column != MONTH and one.is_large(subject.champion.metrics.holdout)
    ]
    holdout = subject.champion.metrics.holdout
    spread = 1.0 if isinstance(holdout, Metrics) else holdout.label_spread
    broken: list[str] = []
    largest = ("", 0.0)
    for one in groups:
        gap, error = one.gap_beside_all()
        if abs(gap) > largest[1]:
            largest = (one.name, abs(gap))
        if abs(gap) > max(_GAP_OF_A_GROUP * spread, _STANDARD_ERRORS * error):
            broken.append(
                f"{one.name} ({one.n_labelled:,} decisions) is told {abs(gap):.3g} {'more' if gap > 0 else 'less'} "
                "than others"
            )
    if not groups:
        broken.append("no group has enough labelled decisions yet")
    if broken:
        return automated(False, listed(broken))
    columns = ", ".join(dict.fromkeys(one.column for one in groups))
    return automated(
        True,
        f"{len(groups)} groups by {columns} were told what came true for them: the largest gap beside all is "
        f"{largest[1]:.3g} ({largest[0]}), allowed are {_GAP_OF_A_GROUP * spread:.3g} or {_STANDARD_ERRORS:g} "
        "standard errors over days",
    )


TESTS: tuple[RubricTest[Subject], ...] = (
    RubricTest(
        section="model",
        number=1,
        name="Model specs are reviewed and submitted",
        how="A person approved the champion's package in the ledger, or recorded a review of the code that shaped it.",
        fault="the code is changed after the review",
        hands="All of it: `ml-assets review --test model_1` after the pull request, or `needs_approval` and "
        "`ml-assets approve`.",
        is_reviewed=True,
        check=spec_is_reviewed,
    ),
    RubricTest(
        section="model",
        number=2,
        name="Offline and online metrics correlate",
        how="The headline metric of what was served lies near the holdout's, and the champion gains over each "
        "baseline online as it does offline.",
        fault="labels land that contradict every prediction",
        check=offline_and_online_agree,
    ),
    RubricTest(
        section="model",
        number=3,
        name="All hyperparameters have been tuned",
        how=f"The newest study has at least {_FEWEST_TRIALS} complete trials, varied all that is not pinned, "
        "and a champion trained since has what it found.",
        fault="a hyperparameter joins the search space that no trial has varied",
        hands="A person launches the search: `ml-assets tune`, or the tuning job. Pinned values are judgements "
        "in the use case.",
        check=hyperparameters_are_tuned,
    ),
    RubricTest(
        section="model",
        number=4,
        name="The impact of model staleness is known",
        how="A staleness curve of the last year is on record, and the champion before is scored beside this one "
        "every day. Without the second it is half a point.",
        fault="the newest curve is of two years ago; older models are not scored any more",
        hands="A person launches the backtest: `ml-assets staleness`, or the staleness job.",
        check=staleness_is_known,
    ),
    RubricTest(
        section="model",
        number=5,
        name="A simpler model is not better",
        how="The champion passed its gates against constant and simple model, and neither does better on what "
        "it served.",
        fault="the simple model proves better on the days served; a gate is missing in the ledger",
        check=simpler_is_not_better,
    ),
    RubricTest(
        section="model",
        number=6,
        name="Model quality is sufficient on important data slices",
        how="The champion passed the gates on slices, and none of those served is worse than knowing its mean "
        "alone, beyond the noise of days.",
        fault="predictions of one carrier are turned around",
        hands="Which slices are important is declared by a person: `slices` of the use case.",
        check=slices_are_good,
    ),
    RubricTest(
        section="model",
        number=7,
        name="The model has been tested for considerations of inclusion",
        how="For each group what was predicted and what came true are as far apart as for all, within a limit "
        "or the noise.",
        fault="one carrier is told more delays than come true",
        hands="Who can be left behind is declared by a person: `slices` of the use case. Of flights it is "
        "carriers and airports.",
        check=nobody_is_left_behind,
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Gain:
    """What the champion gained over a baseline in the task's loss; above 0 it is better."""

    name: str
    offline: float
    online: float


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """One slice over the days that the champion served, by day: labelled decisions, means and losses, float64 [n_days].

    ``all_gap`` is the mean prediction less the mean label of all rows of the same column on each day.
    """

    column: str
    value: str
    n: Floats
    label: Floats
    prediction: Floats
    all_gap: Floats
    loss: Floats
    square: Floats

    @property
    def name(self) -> str:
        return f"{self.column}={self.value}"

    @property
    def n_labelled(self) -> int:
        return int(self.n.sum())

    @property
    def mean_label(self) -> float:
        return _mean(self.label, self.n)

    @property
    def rmse(self) -> float | None:
        return None if np.isnan(self.square).all() else float(np.sqrt(_mean(self.square, self.n)))

    def is_large(self, holdout: Metrics | RegressionMetrics) -> bool:
        """Tell whether it has the rows to be judged by."""
        if self.n_labelled < _FEWEST_ROWS_OF_A_SLICE or len(self.n) < FEWEST_LABELLED_DAYS:
            return False
        n_positive = self.mean_label * self.n_labelled
        return not isinstance(holdout, Metrics) or min(n_positive, self.n_labelled - n_positive) >= _FEWEST_POSITIVES

    def gap_beside_all(self) -> tuple[float, float]:
        """Return how much more it is told than all are, beside what came true, and the standard error over days."""
        return self._over_days(self.prediction - self.label - self.all_gap)

    def loss_beside_its_mean(self) -> tuple[float, float]:
        """Return how far its log loss lies above that of its share of positives, and the standard error over days."""
        return self._over_days(self.loss - constant_log_loss(self.label, self.mean_label))

    def _over_days(self, values: Floats) -> tuple[float, float]:
        """Return the mean of a value of each day, weighted by its decisions, and its standard error (ratio of sums)."""
        weights = self.n / self.n.sum()
        mean = float(weights @ values)
        return mean, float(np.sqrt(np.sum((weights * (values - mean)) ** 2) * len(values) / (len(values) - 1)))


def _mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights / weights.sum())


def _headline(days: pa.Table, holdout: Metrics | RegressionMetrics) -> tuple[float | None, float | None, float, str]:
    """Return the headline metric online and offline, how far apart they may be, and its name."""
    if isinstance(holdout, Metrics):
        return pool_histograms(days).roc_auc, holdout.roc_auc, _ROC_AUC_APART, "ROC AUC"
    n, rmse = (np.asarray(days[name].to_numpy(), np.float64) for name in ("n_labelled", "rmse"))
    return float(np.sqrt(_mean(rmse**2, n))), holdout.rmse, _RMSE_APART * holdout.rmse, "RMSE"


def _gains(subject: Subject) -> Iterator[_Gain]:
    shadows = subject.of_champion(SHADOWS)
    if not shadows.num_rows:
        return
    metrics, loss = subject.champion.metrics, meaning_of(subject.use_case.task).loss.name
    for name, baseline in metrics.baselines.items():
        rows = shadows.filter((pc.field("role") == f"baseline:{name}") & pc.field(loss).is_valid())
        if rows.num_rows:
            n, ours, theirs = (
                np.asarray(rows[c].to_numpy(), np.float64) for c in ("n_labelled", loss, f"other_{loss}")
            )
            offline = float(getattr(baseline, loss) - getattr(metrics.holdout, loss))
            yield _Gain(name=name.replace("_", " "), offline=offline, online=_mean(theirs - ours, n))


def _not_passed(subject: Subject, prefix: str) -> Iterator[str]:
    """Yield what is wrong with the gates of the champion's promotion whose names begin so: missing, or failed."""
    gates = {gate.name: gate for gate in subject.promotion.gates}
    for name in GATES[subject.use_case.task]:
        if name.startswith(prefix) and name not in gates:
            yield f"{subject.promotion.version} was promoted without the gate {name}"
        elif name.startswith(prefix) and not gates[name].is_passed:
            yield f"{subject.promotion.version} was promoted though {gates[name].detail}"


def _pooled_slices(subject: Subject) -> Sequence[_Slice]:
    rows = subject.of_champion(SLICES)
    if not rows.num_rows:
        return []
    rows = rows.filter(pc.field("n_labelled") > 0)
    by_slice: dict[tuple[str, str], list[Mapping[str, object]]] = {}
    of_column: dict[tuple[str, object], list[tuple[float, float]]] = {}
    for row in rows.to_pylist():
        by_slice.setdefault((row["slice"], row["value"]), []).append(row)
        gap = row["mean_prediction"] - row["mean_label"]
        of_column.setdefault((row["slice"], row["partition_on"]), []).append((row["n_labelled"], gap))
    rest = {key: float(np.average([gap for _, gap in of], weights=[n for n, _ in of])) for key, of in of_column.items()}
    found: list[_Slice] = []
    for (column, value), days in by_slice.items():
        n, label, prediction, loss, rmse = (
            np.array([np.nan if day[name] is None else day[name] for day in days], np.float64)
            for name in ("n_labelled", "mean_label", "mean_prediction", "log_loss", "rmse")
        )
        found.append(
            _Slice(
                column=column,
                value=value,
                n=n,
                label=label,
                prediction=prediction,
                all_gap=np.array([rest[column, day["partition_on"]] for day in days]),
                loss=loss,
                square=rmse**2,
            )
        )
    return found


def _overall_rmse(slices: Sequence[_Slice]) -> float:
    squares = [(one.rmse**2, one.n_labelled) for one in slices if one.rmse is not None]
    return float(np.sqrt(np.average([s for s, _ in squares], weights=[n for _, n in squares]))) if squares else 0.0
