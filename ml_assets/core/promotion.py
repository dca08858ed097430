"""Whether a candidate may serve: the gates it must pass on the pinned holdout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ml_assets.core.evaluation import Metrics
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


def judge(
    candidate: Metrics,
    *,
    baselines: Mapping[str, Metrics],
    champion: Metrics | None,
    rule: PromotionRule,
    sample_fraction: float = 1.0,
) -> Verdict:
    """Hold a candidate against the floors of its use case, the baselines and the champion, all on the same holdout.

    - ``roc_auc_floor``: ROC AUC at least ``rule.minimum_roc_auc``.
    - ``calibrated``: calibration error at most ``rule.maximum_calibration_error``.
    - ``beats_base_rate_pr_auc``, ``beats_base_rate_log_loss``: better than predicting the training share for everyone.
    - ``beats_logistic_roc_auc``, ``beats_logistic_log_loss``: better than a logistic regression.
    - ``all_examples``: trained and measured on all examples; a quick experiment on a sample never serves.
    - ``not_worse_than_champion``: a log loss at most ``rule.may_lose_to_champion_by`` above the champion's; passed
      where nobody is in charge yet.

    Raises KeyError where ``base_rate`` or ``logistic`` is not among the baselines, ValueError where the champion was
    measured on another number of rows.

    >>> ours = Metrics(roc_auc=0.7, pr_auc=0.4, log_loss=0.5, brier=0.1, calibration_error=0.01, n_rows=9,
    ...                positive_share=0.2)
    >>> judge(ours, baselines={"base_rate": ours, "logistic": ours}, champion=None, rule=PromotionRule()).is_promotable
    False
    """
    base_rate, logistic = baselines["base_rate"], baselines["logistic"]
    for name, other in {**baselines, "champion": champion}.items():
        if other and other.n_rows != candidate.n_rows:
            raise ValueError(f"{name} was measured on {other.n_rows} rows, the candidate on {candidate.n_rows}")
    gates = [
        _gate("roc_auc_floor", "ROC AUC", candidate.roc_auc, "at least", rule.minimum_roc_auc, "the floor"),
        _gate(
            "calibrated",
            "calibration error",
            candidate.calibration_error,
            "at most",
            rule.maximum_calibration_error,
            "the ceiling",
        ),
        # The average precision of a constant prediction is the positive share of the holdout.
        _gate("beats_base_rate_pr_auc", "PR AUC", candidate.pr_auc, "above", base_rate.pr_auc, "the base rate's"),
        _gate(
            "beats_base_rate_log_loss", "log loss", candidate.log_loss, "below", base_rate.log_loss, "the base rate's"
        ),
        _gate(
            "beats_logistic_roc_auc", "ROC AUC", candidate.roc_auc, "above", logistic.roc_auc, "the logistic baseline's"
        ),
        _gate(
            "beats_logistic_log_loss",
            "log loss",
            candidate.log_loss,
            "below",
            logistic.log_loss,
            "the logistic baseline's",
        ),
    ]
    is_whole = sample_fraction >= 1.0
    gates.append(
        Gate(
            name="all_examples",
            is_passed=is_whole,
            found=sample_fraction,
            expected=1.0,
            detail=f"trained on {'all' if is_whole else f'a sample of {sample_fraction:g} of the'} examples",
        )
    )
    if champion is None:
        gates.append(
            Gate(
                name="not_worse_than_champion",
                is_passed=True,
                found=candidate.log_loss,
                expected=None,
                detail="no champion is in charge yet",
            )
        )
    else:
        limit = champion.log_loss + rule.may_lose_to_champion_by
        whose = "the champion's" + (f" plus {rule.may_lose_to_champion_by:g}" if rule.may_lose_to_champion_by else "")
        gates.append(_gate("not_worse_than_champion", "log loss", candidate.log_loss, "at most", limit, whose))
    return Verdict(gates=tuple(gates))


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "above": lambda found, expected: found > expected,
    "at least": lambda found, expected: found >= expected,
    "below": lambda found, expected: found < expected,
    "at most": lambda found, expected: found <= expected,
}


def _gate(name: str, metric: str, found: float | None, comparison: str, expected: float | None, whose: str) -> Gate:
    if found is None or expected is None:
        detail = f"{metric} cannot be computed: the holdout holds one class only"
        return Gate(name=name, is_passed=False, found=found, expected=expected, detail=detail)
    is_passed = _COMPARISONS[comparison](found, expected)
    verb = "is" if is_passed else "should be"
    detail = f"{metric} {found:.4f} {verb} {comparison} {whose} {expected:.4f}"
    return Gate(name=name, is_passed=is_passed, found=found, expected=expected, detail=detail)
