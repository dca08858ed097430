"""Retraining as a decision: the evidence of a day, what speaks for a training and against, and what forbids one.

Each factor votes. Two votes ask for a training:

- a severe loss of realised quality that is beyond the noise of the days, predictions that are severely miscalibrated,
  an age whose measured cost exceeds what is tolerated, or half as many examples again as the model was fitted on ask
  alone;
- a slighter loss, a slighter miscalibration, a loss that is only estimated, and drift of the predictions count one vote
  each: two ask together. (A ranking that is lost tilts the slope of the calibration too: beyond the bands of both, a
  slight loss is no longer a doubtful one.)
- quality that is known and holds takes a vote from drift and estimate, not from age and growth. It does not hold while
  an alarm on the calibration stands: delays that grow for all alike leave the ranking as it was, and what is predicted
  comes true no longer. That alarm has a band of its own, as wide as days differ: the luck of the days is in it already.

Drift of inputs has a vote only as long as nothing is known of quality. Where labels come, they tell within days whether
it costs anything, and a week of bad luck beside a season that moved every weather feature is no reason to train: that
is what false trainings were made of (``benchmarks/false_retrainings.py``). Where drift is severe and nothing is known
of quality it asks alone, and the veto on too few new labels still stands. A broken feed has no vote: no training mends
it.

What forbids a training whatever the votes: the cool-down, the budget, too little new data, and features served that
differ from those recomputed, which no training mends. After a number of refused candidates in a row none is asked for
until a person says go on (``core/resumes.py``) or another candidate is promoted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

import msgspec
import pyarrow as pa

from ml_assets.core.drift_tests import percent
from ml_assets.core.fingerprints import json_hash
from ml_assets.core.incidents import Alarm, Incidents
from ml_assets.core.performance import Verdict
from ml_assets.core.spec import RetrainingRule
from ml_assets.core.staleness_curves import StalenessCurve
from ml_assets.core.tasks import words_of

RETRAINING_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "decision": pa.string(),
        "reason": pa.string(),
        "as_of": pa.date32(),
        "last_training_on": pa.date32(),
        "model_version": pa.string(),
        "votes": pa.int64(),
        "factors": pa.string(),
        "evidence": pa.string(),
        "fingerprint": pa.string(),
    }
)

# Judgement: what is measured asks alone, what only points to a loss asks in company.
VOTES_NEEDED = 2
# How far back it is looked since when a use case is stopped: one row a day, and a stop that lasts must not seem new.
DAYS_OF_A_STOP = 366
# One more than a quality that holds takes away: that a fresh model would be better still is known.
_MEASURED = VOTES_NEEDED + 1

_QUALITY, _CALIBRATION, _ESTIMATE = ("quality",), ("calibration",), ("estimated_quality",)
_DRIFT_OF_PREDICTIONS, _DRIFT = ("prediction_drift",), ("drift", "prediction_drift")

# Judgement: each evening asks again, on a week that overlaps the last one: at two standard errors a model that nothing
# ails would be doubted several times a year (``benchmarks/false_retrainings.py`` measures it).
# What is less than the lower limit is no loss at all, whatever alarm stands.
_DOUBTFUL, _NOISE_LIMIT = 1.5, 3.0

Decided = Literal["retrain", "wait", "stopped"]
Severity = Literal["warning", "severe"]


@dataclass(frozen=True, kw_only=True)
class StandingAlarm:
    """An alarm that stands on a day, as ``monitoring.alarms`` has it."""

    kind: str
    subject: str
    severity: str
    explanation: str


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What the headline measure came to over the last labelled days of the model, and on its holdout.

    ``noise`` is the standard error of the distance between the two over days; None where it is unknown.
    ``n_days_worse`` of the days were worse than the holdout each by itself: a change of the world is in most of them,
    a storm in one or two, which may weigh as much. (Of a ranking nearly all days are, since much of it is telling bad
    days from good ones.)
    """

    measure: str
    found: float
    holdout: float
    n_days: int
    noise: float | None = None
    n_days_worse: int | None = None

    @property
    def words(self) -> str:
        """What was found, and over how many days."""
        return f"{words_of(self.measure)} {self.found:.4g} over {self.n_days} days"

    def is_beyond(self, limit: float) -> bool:
        """Whether more is lost than so many standard errors, and on most of the days; so too where that is unknown."""
        lost = self.found - self.holdout if self.measure == "rmse" else self.holdout - self.found
        is_lasting = self.n_days_worse is None or 2 * self.n_days_worse > self.n_days
        return is_lasting and (self.noise is None or lost > limit * self.noise)


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What a measure is estimated at before labels land, on the holdout, and how far recent estimates were off."""

    measure: str
    estimated: float
    holdout: float
    recent_error: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is weighed on one day, as it was known when the day was over.

    Attributes:
        use_case: whose model it is.
        day: the local day; what it decides trains as of the day after.
        model_version: which model predicted it; empty where nobody was in charge yet.
        model_as_of: the as-of date of its training.
        alarms: those that stand.
        realised: None where fewer than three of the last seven days have labels: quality is not known.
        estimated: None where it is not estimated.
        staleness_cost: what the measured curve says the model's age costs, as a share of the loss; None without one.
        staleness_measured_days: the oldest age that the curve has measured.
        n_new_examples: labelled by now, and not yet when the model was trained.
        n_fitted_examples: what the model was fitted and chosen on.
        n_labelled_days: days with labelled examples that a training could use; counted where nobody is in charge.
        n_days_for_first: how many of them the first training waits for.
        last_training_on: the newest as-of date that was trained, or asked for.
        has_last_training_failed: it was tried, and every attempt failed.
        n_trainings: as-of dates trained or asked for within the days of the budget.
        n_refusals: candidates refused in a row since the last promotion, or since a person said go on.
    """

    use_case: str
    day: date
    model_version: str = ""
    model_as_of: date | None = None
    alarms: tuple[StandingAlarm, ...] = ()
    realised: Realised | None = None
    estimated: Estimated | None = None
    staleness_cost: float | None = None
    staleness_measured_days: int = 0
    n_new_examples: int = 0
    n_fitted_examples: int = 0
    n_labelled_days: int = 0
    n_days_for_first: int = 0
    last_training_on: date | None = None
    has_last_training_failed: bool = False
    n_trainings: int = 0
    n_refusals: int = 0

    @property
    def as_of(self) -> date:
        """The as-of date of a training that this evidence asks for: it may use the day itself."""
        return self.day + timedelta(days=1)

    @property
    def age_days(self) -> int | None:
        """How old the model is, from the as-of date of its training; None without a model."""
        return (self.as_of - self.model_as_of).days if self.model_as_of else None

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all of it: the same evidence is the same question."""
        return json_hash(self)[:16]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One thing that was weighed: what was found, what it was held against, and what it says.

    ``votes`` count for a training, below 0 against one; a factor that ``forbids`` decides whatever the votes.
    """

    name: str
    found: str
    threshold: str
    votes: int = 0
    forbids: bool = False
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class RetrainingDecision:
    """Whether to train again as of the day after the evidence's, and why (or why not)."""

    evidence: Evidence
    decision: Decided
    reason: str
    factors: tuple[Factor, ...] = field(default=())

    @property
    def votes(self) -> int:
        """The sum of all votes."""
        return sum(factor.votes for factor in self.factors)

    @property
    def as_of(self) -> date:
        """The as-of date of a training asked for by this decision."""
        return self.evidence.as_of

    def as_row(self) -> dict[str, object]:
        """Return the decision as a row of ``monitoring.retraining_decisions``."""
        return {
            "use_case": self.evidence.use_case,
            "partition_on": self.evidence.day,
            "decision": self.decision,
            "reason": self.reason,
            "as_of": self.as_of,
            "last_training_on": self.evidence.last_training_on,
            "model_version": self.evidence.model_version or None,
            "votes": self.votes,
            "factors": msgspec.json.encode(self.factors).decode(),
            "evidence": msgspec.json.encode(self.evidence, order="sorted").decode(),
            "fingerprint": self.evidence.fingerprint,
        }


def decide(evidence: Evidence, rule: RetrainingRule) -> RetrainingDecision:
    """Weigh the evidence of a day.

    >>> calm = Evidence(use_case="delay", day=date(2013, 7, 3), model_as_of=date(2013, 7, 1), n_new_examples=5000)
    >>> decide(calm, RetrainingRule()).reason
    'nothing asks for a training: age 3 days, of at most 28'
    >>> alarm = StandingAlarm(kind="quality", subject="roc_auc", severity="severe", explanation="ROC AUC fell to 0.61")
    >>> found = decide(Evidence(use_case="delay", day=date(2013, 7, 3), model_as_of=date(2013, 6, 20),
    ...                         n_new_examples=5000, alarms=(alarm,)), RetrainingRule())
    >>> (found.decision, found.reason)
    ('retrain', 'ROC AUC fell to 0.61')
    """
    weighed = tuple(_weighed(evidence, rule))
    stopped, *obstacles = _obstacles(evidence, rule)
    asking = [factor.words for factor in weighed if factor.votes > 0]
    n_votes = sum(factor.votes for factor in weighed)
    forbidding = [factor.words for factor in obstacles if factor.forbids]
    decision: Decided = "wait"
    if stopped.forbids:
        decision, reason = "stopped", stopped.words
    elif n_votes < VOTES_NEEDED:
        heard = [factor.words for factor in weighed if factor.words and factor.votes <= 0]
        reason = (
            f"not enough asks for a training: {'; '.join([*asking, *heard])}"
            if asking
            else f"nothing asks for a training: {'; '.join(heard)}"
        )
    elif forbidding:
        reason = f"{'; '.join(forbidding)}, though {'; '.join(asking)}"
    else:
        decision, reason = "retrain", "; ".join(asking)
    return RetrainingDecision(
        evidence=evidence, decision=decision, reason=reason, factors=(*weighed, stopped, *obstacles)
    )


def judge_declared_age(curve: StalenessCurve | None, rule: RetrainingRule) -> Verdict:
    """Tell whether a use case declares a greater age than its newest curve supports, and what it should declare."""
    if curve is None:
        return Verdict(is_alarming=False, reasons=("no staleness curve yet: run `ml-assets staleness` to measure one",))
    useful, tolerance = curve.useful_days(rule.staleness_tolerance), percent(rule.staleness_tolerance)
    early, late = curve.useful_days_between(rule.staleness_tolerance)
    declared = rule.maximum_age_days
    least = max(useful, rule.cool_down_days, 1)
    supported = (
        f"as of {curve.as_of} a model costs at most {tolerance} of {curve.loss.replace('_', ' ')} up to an age of "
        f"{useful} days ({early} to {late} by the limits of the curve)"
    )
    if declared > least:
        found = (
            f"maximum_age_days is {declared}, where {percent(curve.cost(declared))} is lost; declare {least} or less"
        )
        return Verdict(is_alarming=True, reasons=(found, supported))
    return Verdict(is_alarming=False, reasons=(f"maximum_age_days is {declared}", supported))


def retraining_alarms(decisions: pa.Table) -> Mapping[date, Sequence[Alarm]]:
    """Return by day the alarms that rows of ``monitoring.retraining_decisions`` raise: what a person must act on.

    One for a use case that is stopped, one for a training of which every attempt failed; each since the first of the
    days without a longer pause, so far as the rows reach back.
    """
    found: dict[date, Sequence[Alarm]] = {}
    incidents = Incidents(pa.schema({"partition_on": pa.date32()}).empty_table())
    for row in sorted(decisions.to_pylist(), key=lambda row: row["partition_on"]):
        evidence = msgspec.json.decode(row["evidence"] or "null", type=Evidence | None)
        raised: dict[str, str] = {}
        if row["decision"] == "stopped":
            raised["stopped"] = row["reason"]
        if evidence and evidence.has_last_training_failed:
            raised["failed"] = f"every attempt to train as of {evidence.last_training_on} failed; see the runs"
        day = row["partition_on"]
        alarms = [
            Alarm(kind="retraining", subject=subject, severity="severe", explanation=explanation, since=day)
            for subject, explanation in raised.items()
        ]
        found[day] = tuple(incidents.continued(alarms, day, row["model_version"] or ""))
    return found


def _weighed(evidence: Evidence, rule: RetrainingRule) -> Iterator[Factor]:
    if evidence.model_as_of is None:
        yield _first_training(evidence)
        return
    yield _realised(evidence)
    yield _calibration(evidence)
    yield _estimate(evidence)
    yield _drift(evidence)
    yield _age(evidence, rule)
    yield _growth(evidence, rule)


def _first_training(evidence: Evidence) -> Factor:
    n_days, needed = evidence.n_labelled_days, evidence.n_days_for_first
    is_enough = n_days >= needed
    return Factor(
        name="first_training",
        found=f"{n_days} labelled days",
        threshold=f"{needed}",
        votes=VOTES_NEEDED if is_enough else 0,
        words=f"nobody is in charge, and {n_days} days are labelled" + ("" if is_enough else f" of {needed} needed"),
    )


def _realised(evidence: Evidence) -> Factor:
    quality, alarms = evidence.realised, _of(evidence, _QUALITY)
    is_severe = any(alarm.severity == "severe" for alarm in alarms)
    if alarms and quality is not None and not quality.is_beyond(_DOUBTFUL):
        votes, words = 0, f"{_said(alarms)}, which the luck of the days explains"
    elif alarms:
        is_sure = is_severe and (quality is None or quality.is_beyond(_NOISE_LIMIT))
        votes, words = 2 if is_sure else 1, _said(alarms)
    elif quality and not _of(evidence, _CALIBRATION):
        votes, words = -1, f"quality holds ({quality.words}, holdout {quality.holdout:.4g})"
    else:
        votes, words = 0, ""
    return Factor(
        name="realised_quality",
        found=quality.words if quality else "too few labelled days",
        threshold=f"holdout {quality.holdout:.4g}" if quality else "",
        votes=votes,
        words=words,
    )


def _calibration(evidence: Evidence) -> Factor:
    quality, alarms = evidence.realised, _of(evidence, _CALIBRATION)
    is_severe, words = any(alarm.severity == "severe" for alarm in alarms), _said(alarms)
    if alarms and quality and not _of(evidence, (*_QUALITY, *_ESTIMATE)):
        lost = "the error has grown" if quality.measure == "rmse" else "the ranking is lost"
        words += f", though no alarm says that {lost} ({quality.words}, holdout {quality.holdout:.4g})"
    return Factor(
        name="calibration",
        found=("severely miscalibrated" if is_severe else "miscalibrated") if alarms else "no alarm",
        threshold="its band of 99 %",
        votes=(2 if is_severe else 1) if alarms else 0,
        words=words,
    )


def _estimate(evidence: Evidence) -> Factor:
    estimate, alarms = evidence.estimated, _of(evidence, _ESTIMATE)
    off_by = estimate.recent_error if estimate else None
    is_noise = estimate is not None and off_by is not None and off_by >= abs(estimate.estimated - estimate.holdout)
    words = _said(alarms)
    if alarms and is_noise:
        words += f", which is no more than recent estimates were off by ({off_by:.2g})"
    return Factor(
        name="estimated_quality",
        found=f"{words_of(estimate.measure)} {estimate.estimated:.4g}" if estimate else "not estimated",
        threshold=f"holdout {estimate.holdout:.4g}, off by {'?' if off_by is None else f'{off_by:.2g}'} lately"
        if estimate
        else "",
        votes=1 if alarms and not is_noise else 0,
        words=words,
    )


def _drift(evidence: Evidence) -> Factor:
    alarms = _of(evidence, _DRIFT)
    is_severe = any(alarm.severity == "severe" for alarm in alarms)
    is_blind = evidence.realised is None and not _of(evidence, (*_QUALITY, *_CALIBRATION))
    heard = alarms if is_blind else _of(evidence, _DRIFT_OF_PREDICTIONS)
    return Factor(
        name="drift",
        found=f"{len(alarms)} alarms" + (", severe" if is_severe else ""),
        threshold="severe, as nothing is known of quality"
        if is_blind
        else "of the predictions, beside a loss of quality",
        votes=(2 if is_severe and is_blind else 1) if heard else 0,
        words=_said(alarms),
    )


def _age(evidence: Evidence, rule: RetrainingRule) -> Factor:
    age, cost = evidence.age_days or 0, evidence.staleness_cost
    if cost is None:
        is_old, found, threshold = age > rule.maximum_age_days, f"{age} days", f"{rule.maximum_age_days} days"
        words = f"age {age} days, of at most {rule.maximum_age_days}"
    else:
        is_unknown = age > evidence.staleness_measured_days
        is_old = cost > rule.staleness_tolerance or is_unknown
        found, threshold = f"{age} days cost {percent(cost)}", percent(rule.staleness_tolerance)
        words = f"age {age} days, which costs {percent(cost)} of the loss by the staleness curve" + (
            f" or more: it was measured to {evidence.staleness_measured_days} days only"
            if is_unknown
            else f", {percent(rule.staleness_tolerance)} tolerated"
        )
    return Factor(name="age", found=found, threshold=threshold, votes=_MEASURED if is_old else 0, words=words)


def _growth(evidence: Evidence, rule: RetrainingRule) -> Factor:
    n_new, n_fitted = evidence.n_new_examples, evidence.n_fitted_examples
    has_grown = 0 < rule.growth_share * n_fitted <= n_new
    share = percent(n_new / n_fitted) if n_fitted else "all"
    return Factor(
        name="growth",
        found=f"{n_new:,} new examples, {share} of {n_fitted:,}",
        threshold=percent(rule.growth_share),
        votes=_MEASURED if has_grown else 0,
        words=f"{n_new:,} new labelled examples beside the {n_fitted:,} it was fitted on" if has_grown else "",
    )


def _obstacles(evidence: Evidence, rule: RetrainingRule) -> tuple[Factor, ...]:
    """Return what may forbid a training; that no more are to be asked for comes first."""
    return (
        _stop(evidence, rule),
        _cool_down(evidence, rule),
        _budget(evidence, rule),
        _new_examples(evidence, rule),
        _skew(evidence),
    )


def _stop(evidence: Evidence, rule: RetrainingRule) -> Factor:
    n_refusals = evidence.n_refusals
    return Factor(
        name="refusals",
        found=f"{n_refusals} in a row",
        threshold=f"{rule.most_refusals}",
        forbids=n_refusals >= rule.most_refusals,
        words=(
            f"stopped: {n_refusals} candidates in a row were refused, so another would be too; see why in their "
            f"reports, mend it, then `ml-assets resume --use-case {evidence.use_case} --by NAME --reason WHY`"
        ),
    )


def _cool_down(evidence: Evidence, rule: RetrainingRule) -> Factor:
    last = evidence.last_training_on
    # What failed has taught nothing: it is asked for again on the next day, as often as the budget allows.
    rest = timedelta(days=min(1, rule.cool_down_days) if evidence.has_last_training_failed else rule.cool_down_days)
    rested_on = last + rest if last else evidence.as_of
    failed = ", which failed" if evidence.has_last_training_failed else ""
    return Factor(
        name="cool_down",
        found=f"last training as of {last}{failed}" if last else "never trained",
        threshold=f"{rule.cool_down_days} days",
        forbids=evidence.as_of < rested_on,
        words=f"cooling down until {rested_on}",
    )


def _budget(evidence: Evidence, rule: RetrainingRule) -> Factor:
    n_trainings = evidence.n_trainings
    return Factor(
        name="budget",
        found=f"{n_trainings} trainings in {rule.budget_days} days",
        threshold=f"{rule.budget_trainings}",
        forbids=n_trainings >= rule.budget_trainings,
        words=f"the budget is spent, {n_trainings} trainings in {rule.budget_days} days",
    )


def _new_examples(evidence: Evidence, rule: RetrainingRule) -> Factor:
    n_new, needed = evidence.n_new_examples, rule.minimum_new_examples
    if evidence.model_as_of is None:
        return Factor(name="new_examples", found="all are new", threshold="")
    needed = max(needed, round(rule.minimum_new_share * evidence.n_fitted_examples))
    return Factor(
        name="new_examples",
        found=f"{n_new:,}",
        threshold=f"{needed:,}",
        forbids=n_new < needed,
        words=f"only {n_new:,} new labelled examples of {needed:,} needed",
    )


def _skew(evidence: Evidence) -> Factor:
    alarms = [alarm for alarm in _of(evidence, ("skew",)) if alarm.severity == "severe"]
    return Factor(
        name="skew",
        found=f"{len(alarms)} severe alarms",
        threshold="none",
        forbids=bool(alarms),
        words=f"features served differ from those recomputed, which no training mends ({_said(alarms)})",
    )


def _of(evidence: Evidence, kinds: Sequence[str]) -> list[StandingAlarm]:
    return [alarm for alarm in evidence.alarms if alarm.kind in kinds]


def _said(alarms: Iterable[StandingAlarm]) -> str:
    """Say the severe ones first, and of many only the first three."""
    said = [alarm.explanation for alarm in sorted(alarms, key=lambda alarm: alarm.severity != "severe")]
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more
