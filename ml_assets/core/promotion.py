"""Whether a candidate may serve: the gates it must pass on the pinned holdout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ml_assets.core.encoding import PROBABILITY, Output, Task
from ml_assets.core.gates import Gate, against_champion, at_most, beats, floors, no_slice_loses
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import Comparison
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule
from ml_assets.core.tasks import AnyMetrics, meaning_of

_TELLING = ("roc_auc_floor", "r2_floor", "against_champion")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The gates a candidate was held against, in order. It is promotable if it passed every one."""

    gates: tuple[Gate, ...]

    @property
    def is_promotable(self) -> bool:
        """Whether every gate is passed."""
        return all(gate.is_passed for gate in self.gates)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the gates that failed say; what all gates say where none failed."""
        failed = tuple(gate.detail for gate in self.gates if not gate.is_passed)
        return failed or tuple(gate.detail for gate in self.gates)

    @property
    def summary(self) -> str:
        """One line for the ledger: what the gates that failed say, or that all passed and what two of them say."""
        if not self.is_promotable:
            return "; ".join(self.reasons)
        telling = (gate.detail for gate in self.gates if gate.name in _TELLING)
        return "; ".join([f"passed all {len(self.gates)} gates", *telling])


@dataclass(frozen=True, kw_only=True)
class ServingCost:
    """What a prediction takes: the ONNX model in bytes, and the median time of a call with 1 and 1,000 rows.

    ``n_models`` is how many models the graph holds: with segments the parent and those of their own.
    """

    model_bytes: int
    one_row_ms: float
    thousand_rows_ms: float
    n_models: int = 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a candidate before it is judged. All figures are of the same rows, the pinned holdout.

    Attributes:
        candidate: its metrics.
        baselines: the task's baselines, a constant and a simple model, and what the candidate gains over each.
        champion: the same for the version in charge; None where nobody is.
        slices: each slice of the holdout beside the champion or, without one, the simple baseline.
        largest_parity_difference: between ONNX and the library, on any row; see ``PackageMetrics``.
        leaks: what the training saw.
        sample_fraction: the share of the examples it was trained and measured on.
        output: what it answers, and in which unit.
    """

    candidate: AnyMetrics
    baselines: Mapping[str, Comparison]
    champion: Comparison | None
    slices: Sequence[SliceQuality]
    largest_parity_difference: float
    leaks: LeakCheck
    sample_fraction: float
    output: Output = PROBABILITY


_EVERY_TASK = {
    "all_examples": "Trained on all examples, not on a sample.",
    "model_size": "The ONNX model is small enough, in MB.",
    "one_row_latency": "One row is scored fast enough, in ms.",
    "thousand_rows_latency": "A thousand rows are scored fast enough, in ms.",
    "parity": "ONNX and the training library say the same on every row.",
    "labels_known_in_time": "No example's label became known after the as-of date began.",
    "holdout_unseen": "The model was neither fitted on nor chosen by a day of the holdout.",
}
# The gates of each task, and what passing them means.
GATES: Mapping[Task, Mapping[str, str]] = {
    "binary_classification": {
        "roc_auc_floor": "ROC AUC on the holdout reaches the floor of the use case.",
        "calibrated": "Predicted and observed shares agree.",
        "beats_base_rate_pr_auc": "PR AUC above that of predicting the base rate for everyone, beyond the noise.",
        "beats_base_rate_log_loss": "Log loss below that of predicting the base rate for everyone, beyond the noise.",
        "beats_logistic_roc_auc": "ROC AUC above that of a logistic regression, beyond the noise.",
        "beats_logistic_log_loss": "Log loss below that of a logistic regression, beyond the noise.",
        "against_champion": "Log loss against the champion's on the same holdout, by the use case's rule.",
        "no_slice_loses_log_loss": "No slice has a log loss worse than another model's by its floor, beyond the noise.",
        "no_slice_loses_roc_auc": "No slice has a ROC AUC worse than another model's by its floor, beyond the noise.",
        **_EVERY_TASK,
    },
    "regression": {
        "r2_floor": "R2 on the holdout reaches the floor of the use case.",
        "unbiased": "Predictions are right on average, within a share of the labels' spread.",
        "beats_mean_rmse": "RMSE below that of predicting the training mean for everyone, beyond the noise.",
        "beats_mean_mae": "MAE below that of predicting the training mean for everyone, beyond the noise.",
        "beats_linear_rmse": "RMSE below that of a linear regression, beyond the noise.",
        "beats_linear_mae": "MAE below that of a linear regression, beyond the noise.",
        "against_champion": "RMSE against the champion's on the same holdout, by the use case's rule.",
        "no_slice_loses_rmse": "No slice has an RMSE worse than another model's by its floor, beyond the noise.",
        **_EVERY_TASK,
    },
}


def judge(evidence: Evidence, *, cost: ServingCost, rule: PromotionRule) -> Verdict:
    """Hold a candidate against the floors of its use case, the baselines, the champion, and what serving allows.

    The gates are those of ``GATES`` for its task.

    - ``roc_auc_floor``, ``calibrated``: at least and at most what the rule says; of a regression ``r2_floor`` and
      ``unbiased``.
    - ``beats_...``: better, beyond the noise, than a constant prediction and than a simple model.
    - ``all_examples``: trained and measured on all examples; a quick experiment on a sample never serves.
    - ``against_champion``: the loss against the champion's, by ``rule.against_champion``; passed where nobody
      is in charge yet.
    - ``no_slice_loses_...``: no slice is worse than the champion (or the simple baseline) by more than its floor
      allows, beyond the noise. With many slices one would seem to be by chance: each is held against the confidence
      that leaves ``rule.confidence`` to all of them together (Bonferroni).
    - ``model_size``, ``one_row_latency``, ``thousand_rows_latency``: at most what the rule allows.
    - ``parity``: ONNX and the library differ on no row by more than ``rule.maximum_parity_difference``.
    - ``labels_known_in_time``: no example's label became known after the as-of date began.
    - ``holdout_unseen``: the last day the model was fitted on or chosen by is before the first holdout day.

    Raises KeyError where one of the task's baselines is not among the baselines, ValueError where another model was
    measured on another number of rows.
    """
    candidate, leaks, output = evidence.candidate, evidence.leaks, evidence.output
    meaning = meaning_of(output.task)
    whose = "the champion's" if evidence.champion else f"{meaning.baseline_words[meaning.simple_baseline]}'s"
    for name, other in {**evidence.baselines, "champion": evidence.champion}.items():
        if other and other.other.n_rows != candidate.n_rows:
            raise ValueError(f"{name} was measured on {other.other.n_rows} rows, the candidate on {candidate.n_rows}")
    gates = [
        *floors(candidate, rule, output),
        *(
            beats(
                *(f"beats_{name}_{measure.name}", measure, candidate, evidence.baselines[name]),
                whose=f"{meaning.baseline_words[name]}'s",
                confidence=rule.confidence,
                output=output,
            )
            for name, measure in meaning.beats
        ),
        _all_examples(evidence.sample_fraction),
        against_champion(candidate, evidence.champion, rule, output),
        *(no_slice_loses(evidence.slices, measure, rule, output, whose=whose) for measure in meaning.sliced),
        at_most("model_size", "model size in MB", cost.model_bytes / 1e6, rule.maximum_model_mb),
        _latency("one_row_latency", "1 row", cost.one_row_ms, rule.maximum_one_row_ms),
        _latency("thousand_rows_latency", "1,000 rows", cost.thousand_rows_ms, rule.maximum_thousand_rows_ms),
        _parity(evidence.largest_parity_difference, rule.maximum_parity_difference),
        Gate(
            name="labels_known_in_time",
            is_passed=leaks.n_labels_too_late == 0,
            found=float(leaks.n_labels_too_late),
            expected=0.0,
            detail=f"{leaks.n_labels_too_late} labels became known after the as-of date began at "
            f"{leaks.as_of_at:%Y-%m-%d %H:%M} UTC; the newest at {leaks.newest_label_known_at:%Y-%m-%d %H:%M}",
        ),
        Gate(
            name="holdout_unseen",
            is_passed=leaks.n_days_between >= 1,
            found=float(leaks.n_days_between),
            expected=1.0,
            detail=f"the last day seen in training is {leaks.last_day_seen}, the first of the holdout "
            f"{leaks.first_holdout_day}",
        ),
    ]
    return Verdict(gates=tuple(_advised(gate, cost.n_models) for gate in gates))


def _all_examples(fraction: float) -> Gate:
    is_whole = fraction >= 1.0
    detail = f"trained on {'all' if is_whole else f'a sample of {fraction:g} of the'} examples"
    return Gate(name="all_examples", is_passed=is_whole, found=fraction, expected=1.0, detail=detail)


def _latency(name: str, call: str, found: float, allowed: float) -> Gate:
    # Passed, the sentence leaves the figure out, which differs every time: found has it, and records stay comparable.
    is_passed = found <= allowed
    took = f"takes at most {allowed:g} ms" if is_passed else f"took {found:.1f} ms and should take at most {allowed:g}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=allowed, detail=f"a call with {call} {took}")


def _advised(gate: Gate, n_models: int) -> Gate:
    """Return a gate with what to do about it, where a package of many models is too large or too slow."""
    if gate.is_passed or n_models == 1 or gate.name not in ("model_size", "one_row_latency", "thousand_rows_latency"):
        return gate
    advice = f"it holds {n_models} models, so raise minimum_rows of Segments, or make the model smaller"
    return replace(gate, detail=f"{gate.detail}; {advice}")


def _parity(found: float, allowed: float) -> Gate:
    is_passed = found <= allowed
    verb = "is" if is_passed else "should be"
    detail = f"largest difference between ONNX and the library {found:.2g} {verb} at most {allowed:g}"
    return Gate(name="parity", is_passed=is_passed, found=found, expected=allowed, detail=detail)
