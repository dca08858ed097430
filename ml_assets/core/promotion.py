"""Whether a candidate may serve: the gates it must pass on the pinned holdout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ml_assets.core.evaluation import Metrics
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition: what was found, what was expected, and a sentence for people.

    ``found`` is None where the holdout does not determine it; such a gate is not passed.
    """

    name: str
    is_passed: bool
    found: float | None
    expected: float | None
    detail: str


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
        telling = (gate.detail for gate in self.gates if gate.name in ("roc_auc_floor", "not_worse_than_champion"))
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
        baselines: ``base_rate`` and ``logistic``, and what the candidate gains over each.
        champion: the same for the version in charge; None where nobody is.
        slices: each slice of the holdout beside the champion or, without one, the logistic baseline.
        largest_parity_difference: between ONNX and the library, on any row.
        leaks: what the training saw.
        sample_fraction: the share of the examples it was trained and measured on.
    """

    candidate: Metrics
    baselines: Mapping[str, Comparison]
    champion: Comparison | None
    slices: Sequence[SliceQuality]
    largest_parity_difference: float
    leaks: LeakCheck
    sample_fraction: float


def judge(evidence: Evidence, *, cost: ServingCost, rule: PromotionRule) -> Verdict:
    """Hold a candidate against the floors of its use case, the baselines, the champion, and what serving allows.

    - ``roc_auc_floor``: ROC AUC at least ``rule.minimum_roc_auc``.
    - ``calibrated``: calibration error at most ``rule.maximum_calibration_error``.
    - ``beats_base_rate_pr_auc``, ``beats_base_rate_log_loss``: better, beyond the noise, than predicting the training
      share for everyone.
    - ``beats_logistic_roc_auc``, ``beats_logistic_log_loss``: better, beyond the noise, than a logistic regression.
    - ``all_examples``: trained and measured on all examples; a quick experiment on a sample never serves.
    - ``not_worse_than_champion``: log loss against the champion's, by ``rule.against_champion``; passed where nobody
      is in charge yet.
    - ``no_slice_loses_log_loss``, ``no_slice_loses_roc_auc``: no slice is worse than the champion (or the logistic
      baseline) by more than its floor allows, beyond the noise. With many slices one would seem to be by chance: each
      is held against the confidence that leaves ``rule.confidence`` to all of them together (Bonferroni).
    - ``model_size``, ``one_row_latency``, ``thousand_rows_latency``: at most what the rule allows.
    - ``parity``: ONNX and the library differ on no row by more than ``rule.maximum_parity_difference``.
    - ``labels_known_in_time``: no example's label became known after the as-of date began.
    - ``holdout_unseen``: the last day the model was fitted on or chosen by is before the first holdout day.

    Raises KeyError where ``base_rate`` or ``logistic`` is not among the baselines, ValueError where another model was
    measured on another number of rows.
    """
    candidate, leaks = evidence.candidate, evidence.leaks
    for name, other in {**evidence.baselines, "champion": evidence.champion}.items():
        if other and other.other.n_rows != candidate.n_rows:
            raise ValueError(f"{name} was measured on {other.other.n_rows} rows, the candidate on {candidate.n_rows}")
    gates = [
        _limit("roc_auc_floor", "ROC AUC", candidate.roc_auc, "at least", rule.minimum_roc_auc, "the floor"),
        _limit(
            *("calibrated", "calibration error", candidate.calibration_error),
            *("at most", rule.maximum_calibration_error, "the ceiling"),
        ),
        *_beats_baselines(evidence, rule),
        _all_examples(evidence.sample_fraction),
        _against_champion(candidate, evidence.champion, rule),
        *_slices(evidence, rule),
        _limit("model_size", "model size in MB", cost.model_bytes / 1e6, "at most", rule.maximum_model_mb, ""),
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


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "at least": lambda found, expected: found >= expected,
    "at most": lambda found, expected: found <= expected,
}


def _limit(name: str, metric: str, found: float | None, comparison: str, expected: float, whose: str) -> Gate:
    if found is None:
        return _undetermined(name, metric, expected)
    is_passed = _COMPARISONS[comparison](found, expected)
    verb = "is" if is_passed else "should be"
    detail = " ".join(part for part in (metric, f"{found:.4f}", verb, comparison, whose, f"{expected:.4f}") if part)
    return Gate(name=name, is_passed=is_passed, found=found, expected=expected, detail=detail)


def _undetermined(name: str, metric: str, expected: float | None) -> Gate:
    detail = f"{metric} cannot be computed: the holdout holds one class only"
    return Gate(name=name, is_passed=False, found=None, expected=expected, detail=detail)


def _all_examples(fraction: float) -> Gate:
    is_whole = fraction >= 1.0
    detail = f"trained on {'all' if is_whole else f'a sample of {fraction:g} of the'} examples"
    return Gate(name="all_examples", is_passed=is_whole, found=fraction, expected=1.0, detail=detail)


def _beats_baselines(evidence: Evidence, rule: PromotionRule) -> Sequence[Gate]:
    candidate = evidence.candidate
    base_rate, logistic = evidence.baselines["base_rate"], evidence.baselines["logistic"]
    # The average precision of a constant prediction is the positive share of the holdout.
    compared = [
        ("base_rate", "pr_auc", "PR AUC", candidate.pr_auc, base_rate.other.pr_auc, base_rate.pr_auc_gain),
        ("base_rate", "log_loss", "log loss", candidate.log_loss, base_rate.other.log_loss, base_rate.log_loss_gain),
        ("logistic", "roc_auc", "ROC AUC", candidate.roc_auc, logistic.other.roc_auc, logistic.roc_auc_gain),
        ("logistic", "log_loss", "log loss", candidate.log_loss, logistic.other.log_loss, logistic.log_loss_gain),
    ]
    whose = {"base_rate": "the base rate's", "logistic": "the logistic baseline's"}
    return [
        _beats(
            f"beats_{name}_{field}", metric, found, expected, gain=gain, whose=whose[name], confidence=rule.confidence
        )
        for name, field, metric, found, expected, gain in compared
    ]


def _beats(
    name: str,
    metric: str,
    found: float | None,
    expected: float | None,
    *,
    gain: Estimate | None,
    whose: str,
    confidence: float,
) -> Gate:
    if found is None or expected is None or gain is None:
        return _undetermined(name, metric, expected)
    margin = gain.margin(confidence)
    is_passed = margin is not None and gain.value > margin
    comparison = ("is" if is_passed else "should be") + (" below" if metric == "log loss" else " above")
    detail = f"{metric} {found:.4f} {comparison} {whose} {expected:.4f} by more than {_noise(margin, gain)}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=expected, detail=detail)


def _noise(margin: float | None, gain: Estimate) -> str:
    if margin is None:
        return f"the noise, which {gain.n_days} day of holdout cannot tell: it takes two"
    return f"the noise of {margin:.4f}"


def _against_champion(candidate: Metrics, champion: Comparison | None, rule: PromotionRule) -> Gate:
    name = "not_worse_than_champion"
    if champion is None:
        detail = "no champion is in charge yet"
        return Gate(name=name, is_passed=True, found=candidate.log_loss, expected=None, detail=detail)
    gain, theirs = champion.log_loss_gain, champion.other.log_loss
    if rule.against_champion == "better":
        return _beats(
            *(name, "log loss", candidate.log_loss, theirs),
            gain=gain,
            whose="the champion's",
            confidence=rule.confidence,
        )
    # Where the noise is unknown none of it counts.
    noise = min(gain.margin(rule.confidence) or 0.0, rule.most_champion_noise)
    is_passed = -gain.value <= rule.may_lose_to_champion_by + noise
    detail = (
        f"log loss {candidate.log_loss:.4f} {'is' if is_passed else 'should be'} at most the champion's {theirs:.4f}"
    )
    detail += f" plus {rule.may_lose_to_champion_by:g}" if rule.may_lose_to_champion_by else ""
    detail += f" plus the noise of {noise:.4f}"
    expected = theirs + rule.may_lose_to_champion_by + noise
    return Gate(name=name, is_passed=is_passed, found=candidate.log_loss, expected=expected, detail=detail)


def _slices(evidence: Evidence, rule: PromotionRule) -> Sequence[Gate]:
    """Return the two gates on slices: by log loss, and by ROC AUC."""
    whose = "the champion's" if evidence.champion else "the logistic baseline's"
    confidence = 1 - (1 - rule.confidence) / max(1, len(evidence.slices))
    return [
        _no_slice_loses(
            *("no_slice_loses_log_loss", "log loss"),
            [(part, part.log_loss_gain) for part in evidence.slices],
            allowed=rule.slice_may_lose_log_loss,
            confidence=confidence,
            whose=whose,
        ),
        _no_slice_loses(
            *("no_slice_loses_roc_auc", "ROC AUC"),
            [(part, part.roc_auc_gain) for part in evidence.slices],
            allowed=rule.slice_may_lose_roc_auc,
            confidence=confidence,
            whose=whose,
        ),
    ]


def _no_slice_loses(
    name: str,
    metric: str,
    gains: Sequence[tuple[SliceQuality, Estimate]],
    *,
    allowed: float,
    confidence: float,
    whose: str,
) -> Gate:
    # A slice is measured only where its noise is known.
    losses = [(-gain.value - (gain.margin(confidence) or 0.0), part, gain) for part, gain in gains]
    if not losses:
        detail = "no slice has the rows to be judged"
        return Gate(name=name, is_passed=True, found=None, expected=allowed, detail=detail)
    found, worst, gain = max(losses, key=lambda loss: (loss[0], loss[1].name))
    n_below = sum(loss > allowed for loss, _, _ in losses)
    direction = "better" if gain.value > 0 else "worse"
    detail = (
        f"{n_below} of {len(losses)} slices have a {metric} worse than {whose} by more than {allowed:g} beyond the "
        f"noise; worst is {worst.name} ({worst.n_rows:,} rows): {abs(gain.value):.4f} {direction}, "
        f"noise {gain.margin(confidence) or 0.0:.4f}"
    )
    return Gate(name=name, is_passed=found <= allowed, found=found, expected=allowed, detail=detail)


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
