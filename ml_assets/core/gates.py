"""The gates of promotion one by one: what was found, what was expected, and a sentence for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_assets.core.encoding import Output
from ml_assets.core.evaluation import Metrics
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule
from ml_assets.core.tasks import AnyMetrics, Measure, meaning_of


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


def floors(candidate: AnyMetrics, rule: PromotionRule, output: Output) -> Sequence[Gate]:
    """Return the gates on the candidate's own figures: how much it explains, and whether it is right on average."""
    if isinstance(candidate, Metrics):
        error = candidate.calibration_error
        return [
            _floor("roc_auc_floor", "ROC AUC", candidate.roc_auc, rule.minimum_roc_auc, output),
            at_most("calibrated", "calibration error", error, rule.maximum_calibration_error, "the ceiling"),
        ]
    return [_floor("r2_floor", "R2", candidate.r2, rule.minimum_r2, output), _unbiased(candidate, rule, output)]


def at_most(name: str, metric: str, found: float, allowed: float, whose: str = "") -> Gate:
    """Return the gate on a figure that may be no larger than what the rule allows."""
    is_passed = found <= allowed
    verb = "is" if is_passed else "should be"
    detail = " ".join(part for part in (f"{metric} {found:.4f} {verb} at most", whose, f"{allowed:.4f}") if part)
    return Gate(name=name, is_passed=is_passed, found=found, expected=allowed, detail=detail)


def beats(
    name: str,
    measure: Measure,
    candidate: AnyMetrics,
    comparison: Comparison,
    *,
    whose: str,
    confidence: float,
    output: Output,
) -> Gate:
    """Return the gate on a measure in which another model must be beaten by more than the noise."""
    found, expected = getattr(candidate, measure.name), getattr(comparison.other, measure.name)
    gain = comparison.gains.get(measure.name)
    if found is None or expected is None or gain is None:
        return _undetermined(name, measure.words, expected, output)
    margin = gain.margin(confidence)
    is_passed = margin is not None and gain.value > margin
    verb = f"{'is' if is_passed else 'should be'} {'below' if measure.is_loss else 'above'}"
    ours, theirs = (measure.write(value, output.unit) for value in (found, expected))
    detail = f"{measure.words} {ours} {verb} {whose} {theirs} by more than {_noise(margin, gain, measure, output)}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=expected, detail=detail)


def against_champion(candidate: AnyMetrics, champion: Comparison | None, rule: PromotionRule, output: Output) -> Gate:
    """Return the gate on the loss against the champion's, by the rule of the use case."""
    name, measure = "against_champion", meaning_of(output.task).loss
    found: float = getattr(candidate, measure.name)
    if champion is None:
        detail = "no champion is in charge yet"
        return Gate(name=name, is_passed=True, found=found, expected=None, detail=detail)
    if rule.against_champion == "better":
        whose = "the champion's"
        return beats(name, measure, candidate, champion, whose=whose, confidence=rule.confidence, output=output)
    gain, theirs = champion.gains[measure.name], float(getattr(champion.other, measure.name))
    share = theirs if measure.has_unit else 1.0
    allowed = share * rule.may_lose_to_champion_by
    # Where the noise is unknown none of it counts.
    noise = min(gain.margin(rule.confidence) or 0.0, share * rule.most_champion_noise)
    is_passed = -gain.value <= allowed + noise
    verb = "is" if is_passed else "should be"
    ours, of_champion = (measure.write(value, output.unit) for value in (found, theirs))
    detail = f"{measure.words} {ours} {verb} at most the champion's {of_champion}"
    detail += f" plus {_bare(allowed, measure)}" if allowed else ""
    detail += f" plus the noise of {measure.write(noise, output.unit)}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=theirs + allowed + noise, detail=detail)


def no_slice_loses(
    slices: Sequence[SliceQuality], measure: Measure, rule: PromotionRule, output: Output, *, whose: str
) -> Gate:
    """Return the gate on all slices: none is worse than another model by more than its floor and the noise.

    ``found`` is the largest loss beyond the noise: of a measure with a unit as a share of the other model's figure on
    the slice. A slice is measured only where its noise is known.
    """
    name, allowed = f"no_slice_loses_{measure.name}", float(getattr(rule, f"slice_may_lose_{measure.name}"))
    confidence = 1 - (1 - rule.confidence) / max(1, len(slices))
    losses: list[tuple[float, SliceQuality, Estimate]] = []
    for part in slices:
        gain = part.gains[measure.name]
        share = part.figures[measure.name].value + gain.value if measure.has_unit else 1.0
        losses.append(((-gain.value - (gain.margin(confidence) or 0.0)) / (share or 1.0), part, gain))
    if not losses:
        detail = "no slice has the rows to be judged"
        return Gate(name=name, is_passed=True, found=None, expected=allowed, detail=detail)
    found, worst, gain = max(losses, key=lambda loss: (loss[0], loss[1].name))
    n_below = sum(loss > allowed for loss, _, _ in losses)
    direction = "better" if gain.value > 0 else "worse"
    by, noise = (measure.write(v, output.unit) for v in (abs(gain.value), gain.margin(confidence) or 0.0))
    limit = f"{100 * allowed:g} % of it" if measure.has_unit else f"{allowed:g}"
    detail = (
        f"{n_below} of {len(losses)} slices have {_a(measure.words)} worse than {whose} by more than {limit} beyond "
        f"the noise; worst is {worst.name} ({worst.n_rows:,} rows): {by} {direction}, noise {noise}"
    )
    return Gate(name=name, is_passed=found <= allowed, found=found, expected=allowed, detail=detail)


def _floor(name: str, metric: str, found: float | None, floor: float, output: Output) -> Gate:
    if found is None:
        return _undetermined(name, metric, floor, output)
    is_passed = found >= floor
    detail = f"{metric} {found:.4f} {'is' if is_passed else 'should be'} at least the floor {floor:.4f}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=floor, detail=detail)


def _unbiased(candidate: RegressionMetrics, rule: PromotionRule, output: Output) -> Gate:
    allowed, unit = rule.maximum_bias * candidate.label_spread, f" {output.unit}" if output.unit else ""
    is_passed = abs(candidate.bias) <= allowed
    side = "above" if candidate.bias > 0 else "below"
    detail = (
        f"the mean prediction is {abs(candidate.bias):.4g}{unit} {side} the mean label {candidate.mean_label:.4g}{unit}"
        f" and {'is' if is_passed else 'should be'} within {allowed:.4g}{unit}, {rule.maximum_bias:g} of the labels' "
        "spread"
    )
    return Gate(name="unbiased", is_passed=is_passed, found=candidate.bias, expected=allowed, detail=detail)


def _undetermined(name: str, metric: str, expected: float | None, output: Output) -> Gate:
    why = "all labels of the holdout are equal" if output.task == "regression" else "the holdout holds one class only"
    detail = f"{metric} cannot be computed: {why}"
    return Gate(name=name, is_passed=False, found=None, expected=expected, detail=detail)


def _noise(margin: float | None, gain: Estimate, measure: Measure, output: Output) -> str:
    if margin is None:
        return f"the noise, which {gain.n_days} day of holdout cannot tell: it takes two"
    return f"the noise of {measure.write(margin, output.unit)}"


def _bare(value: float, measure: Measure) -> str:
    return f"{value:.4g}" if measure.has_unit else f"{value:g}"


def _a(words: str) -> str:
    """Put the article before a metric.

    >>> _a("log loss"), _a("RMSE")
    ('a log loss', 'an RMSE')
    """
    return f"{'an' if words == 'RMSE' else 'a'} {words}"
