"""Retraining as a decision: what a day's drift and quality ask for, and what the cool-down allows."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import pyarrow as pa

from ml_assets.core.drift import Verdict
from ml_assets.core.spec import RetrainingRule

RETRAINING_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "decision": pa.string(),
        "reason": pa.string(),
        "as_of": pa.date32(),
        "last_training_on": pa.date32(),
    }
)


@dataclass(frozen=True, kw_only=True)
class RetrainingDecision:
    """Whether to train again as of the day after ``day``, and why (or why not)."""

    use_case: str
    day: date
    decision: Literal["retrain", "wait"]
    reason: str
    last_training_on: date | None

    @property
    def as_of(self) -> date:
        """The as-of date a training asked for by this decision has: it may use the day that asked for it."""
        return self.day + timedelta(days=1)

    def as_row(self) -> dict[str, object]:
        """Return the decision as a row of ``monitoring.retraining_decisions``."""
        return {
            "use_case": self.use_case,
            "partition_on": self.day,
            "decision": self.decision,
            "reason": self.reason,
            "as_of": self.as_of,
            "last_training_on": self.last_training_on,
        }


def decide(
    use_case: str, day: date, *, drift: Verdict, quality: Verdict, last_training_on: date | None, rule: RetrainingRule
) -> RetrainingDecision:
    """Decide whether a day's drift or quality alarm starts a training.

    ``last_training_on`` is the newest as-of date before this day that was trained for, promoted or refused, or that an
    earlier decision asked a training for: or a training that cannot succeed would be started every day.

    >>> alarm, calm = Verdict(is_alarming=True, reasons=("wind drifted",)), Verdict(is_alarming=False, reasons=())
    >>> day, rule = date(2013, 7, 3), RetrainingRule()
    >>> decide("delay", day, drift=alarm, quality=calm, last_training_on=None, rule=rule).reason
    'drift: wind drifted'
    """
    alarms = [f"drift: {reason}" for reason in drift.reasons if drift.is_alarming]
    alarms += [f"quality: {reason}" for reason in quality.reasons if quality.is_alarming]
    rested_on = last_training_on + timedelta(days=rule.cool_down_days) if last_training_on else date.min
    if not alarms:
        decision, reason = "wait", "neither drift nor quality raised an alarm"
    elif day + timedelta(days=1) < rested_on:
        decision, reason = "wait", f"cooling down until {rested_on}; " + "; ".join(alarms)
    else:
        decision, reason = "retrain", "; ".join(alarms)
    return RetrainingDecision(
        use_case=use_case, day=day, decision=decision, reason=reason, last_training_on=last_training_on
    )
