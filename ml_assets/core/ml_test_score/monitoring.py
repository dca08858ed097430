"""The seven tests of monitoring."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

import msgspec
import numpy as np
import pyarrow.compute as pc

from ml_assets.core.data_quality.findings import CHECKS
from ml_assets.core.data_quality.verdicts import verdicts_of
from ml_assets.core.days import DayRange
from ml_assets.core.drift import percent
from ml_assets.core.encoding import Coded, encode
from ml_assets.core.experiments import ENDED, FOLDER, STARTED, EndedAttempt, StartedAttempt
from ml_assets.core.ml_test_score.findings import Finding, RubricTest, automated, listed
from ml_assets.core.ml_test_score.subject import FEWEST_LABELLED_DAYS, Subject
from ml_assets.core.monitored import ALARMS, PERFORMANCE, RETRAINING, SKEW
from ml_assets.core.performance import performance_verdict
from ml_assets.core.portable_model import odd_rows
from ml_assets.core.scoring import score_coded, score_portable
from ml_assets.core.staleness_curves import newest_curve

_N_DAYS_OF_DATA = 7
# Judgements. What came late may differ; a twentieth of the rows is no late row.
_MOST_DIFFERENT = 0.05
# A call that takes three times as long as before the promotion, and not by a few milliseconds, is not the machine.
_SLOWER = 3.0
_LEAST_MS = 20.0
_N_CALLS = 21


def dependencies_are_watched(subject: Subject) -> Finding:
    """Look for the daily verdict on every raw table's schema, and at the libraries the champion was made with."""
    expected = [contract.table for contract in subject.contracts.values() if contract.is_partitioned]
    rows = [row for row in _verdicts(subject) if row["check_name"] == "schema"]
    judged = {(row["table_name"], row["partition_on"]) for row in rows}
    days = _recent(subject).dates
    broken = [
        f"nobody has looked at the schema of raw.{table} on {day}"
        for table in expected
        for day in days
        if (table, day) not in judged
    ]
    broken += [str(row["explanation"]) for row in rows if row["severity"] == "severe" and not row["released_by"]]
    libraries = subject.champion.manifest.libraries
    broken += [
        f"{subject.champion.version} was made with {name} {version}, and {found or 'none'} is installed"
        for name, version in sorted(libraries.items())
        if (found := subject.bench.libraries(name)) != version
    ]
    if broken:
        return automated(False, listed(broken))
    told = sum(bool(row["severity"]) for row in rows)
    return automated(
        True,
        f"the schema of {len(expected)} raw tables was judged on each of {len(days)} days, {told} changes were told; "
        f"the {len(libraries)} libraries of {subject.champion.version} are installed as they were "
        f"({_named(libraries)})",
    )


def inputs_keep_invariants(subject: Subject) -> Finding:
    """Look for every check of every raw day of a week, and for a fault that nobody has released."""
    expected = [contract.table for contract in subject.contracts.values() if contract.is_partitioned]
    rows = _verdicts(subject)
    judged = {(row["table_name"], row["partition_on"], row["check_name"]) for row in rows}
    days = _recent(subject).dates
    broken = [
        f"raw.{table} of {day} was not judged for {', '.join(absent)}"
        for table in expected
        for day in days
        if (absent := [check for check in CHECKS if (table, day, check) not in judged])
    ]
    broken += [
        f"raw.{row['table_name']} of {row['partition_on']}: {row['explanation']}" for row in rows if row["is_blocking"]
    ]
    if broken:
        return automated(False, listed(broken))
    n_told = sum(bool(row["severity"]) for row in rows)
    return automated(
        True,
        f"{len(CHECKS)} checks on each of {len(expected)} raw tables and {len(days)} days to {days[-1]}: {n_told} "
        "findings, no severe fault that is not released",
    )


def nothing_is_skewed(subject: Subject) -> Finding:
    """Look at how many features served are recomputed to the bit, for every view."""
    rows = [row for row in subject.monitored(SKEW).to_pylist() if row["partition_on"] == subject.newest_day]
    of_views = {row["view"]: row for row in rows if not row["feature"]}
    broken = [
        f"{view.name} was not compared on {subject.newest_day}" for view in subject.views if view.name not in of_views
    ]
    broken += [
        f"{name}: {row['explanation']}"
        for name, row in of_views.items()
        if row["n_different"] > _MOST_DIFFERENT * row["n_compared"]
    ]
    if broken:
        return automated(False, listed(broken))
    n_compared = min(row["n_compared"] for row in of_views.values())
    n_different = sum(row["n_different"] for row in of_views.values())
    return automated(
        True,
        f"on {subject.newest_day} {n_compared} decisions were recomputed by all {len(subject.views)} views: "
        f"{n_different} values differ from what the model read",
    )


def champion_is_fresh(subject: Subject) -> Finding:
    """Hold the champion's age against what it may cost, or what is declared, and look for the daily decision on it."""
    age, rule = (subject.day - subject.in_charge.as_of).days, subject.use_case.retraining
    curve = newest_curve(subject.store, subject.use_case.name, subject.day)
    allowed = (
        min(curve.useful_days(rule.staleness_tolerance), curve.longest_age_days) if curve else rule.maximum_age_days
    )
    why = f"by the staleness curve of {curve.as_of}" if curve else "as declared"
    told = f"{subject.in_charge.version} is {age} days old, of {allowed} at most {why}"
    decided = subject.monitored(RETRAINING).to_pylist()
    if not decided or decided[-1]["partition_on"] < subject.newest_day:
        return automated(False, f"{told}; whether to train again was not decided on {subject.newest_day}")
    last = decided[-1]
    return automated(
        age <= allowed, f"{told}; on {last['partition_on']} it was decided to {last['decision']}: {last['reason']}"
    )


def numbers_are_sound(subject: Subject) -> Finding:
    """Look for anything that is no number: in what was served, the weights, the training, and answers to odd rows."""
    package = subject.champion
    rows, sound = sum(one.n_rows for one in subject.predicted), sum(one.n_sound for one in subject.predicted)
    stuck = [one.day for one in subject.predicted if one.n_rows > 1 and one.n_distinct == 1]
    broken = [f"{rows - sound} of {rows:,} predictions are no number in the range"] if sound < rows else []
    broken += [f"all predictions of {day} are the same" for day in stuck]
    broken += [f"the weights {name} of {package.version} are not all numbers" for name in _unsound(package.weights)]
    losses = [loss for _, *of in package.metrics.epochs for loss in of]
    if not np.all(np.isfinite(losses)):
        broken.append(f"the training curve of {package.version} is not all numbers")
    odd = odd_rows(subject.examples, package.signature, package.vocabulary)
    for name, answers in (
        ("coded", score_coded(package.model, encode(odd, package.signature, package.vocabulary))),
        ("portable", score_portable(package.portable, odd, package.signature)),
    ):
        if not np.all(np.isfinite(answers)):
            broken.append(f"the {name} graph of {package.version} gives no number for nulls, unseen or infinite values")
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"{rows:,} predictions of {len(subject.predicted)} days, {len(losses)} losses of the training and all weights "
        f"are numbers in their range; so are the answers to {odd.num_rows} rows of nulls, unseen and infinite values",
    )


def computing_is_as_fast(subject: Subject) -> Finding:
    """Time calls now beside those before the promotion, and the trainings per row beside the ones before."""
    package, gates = subject.champion, {gate.name: gate for gate in subject.promotion.gates}
    rows = encode(
        subject.examples.take(np.arange(1000) % subject.examples.num_rows), package.signature, package.vocabulary
    )
    one = Coded(numeric=rows.numeric[:1], categorical=rows.categorical[:1])
    broken: list[str] = []
    told: list[str] = []
    for name, calls, words in (("one_row_latency", one, "1 row"), ("thousand_rows_latency", rows, "1,000 rows")):
        now, gate = _fastest_ms(package.model, calls, subject.bench.clock), gates.get(name)
        if gate is None or gate.found is None:
            broken.append(f"{package.version} was promoted without the gate {name}")
            continue
        allowed = max(_SLOWER * gate.found, _LEAST_MS)
        told.append(f"{words} took {gate.found:.2g} ms before the promotion and at most {allowed:.2g} now")
        if now > allowed:
            broken.append(f"{words} take {now:.1f} ms, {gate.found:.1f} before the promotion")
    paces = list(_paces(subject))
    if not paces:
        broken.append("no training of it is on record")
    elif len(paces) > 1:
        usual = median(paces[:-1])
        told.append(
            f"the newest training took {paces[-1]:.2g} s per 1,000 rows, {len(paces) - 1} before it {usual:.2g}"
        )
        if paces[-1] > _SLOWER * usual:
            broken.append(told.pop())
    else:
        told.append(f"one training is on record, {paces[0]:.2g} s per 1,000 rows")
    return automated(not broken, listed(broken or told))


def quality_has_not_regressed(subject: Subject) -> Finding:
    """Hold the labelled days of the champion against its holdout, and look for the alarms on it."""
    rows = subject.of_champion(PERFORMANCE)
    n_labelled = rows.filter(pc.field("n_labelled") > 0).num_rows if rows.num_rows else 0
    if n_labelled < FEWEST_LABELLED_DAYS:
        return automated(False, f"only {n_labelled} days of the champion have labels, too few to judge quality")
    verdict = performance_verdict(rows, subject.champion.metrics.holdout, unit=subject.use_case.label.unit)
    alarms = [
        row
        for row in subject.monitored(ALARMS).to_pylist()
        if row["partition_on"] == subject.newest_day and "quality" in row["kind"] and row["severity"] == "severe"
    ]
    told = "; ".join([*verdict.reasons, *(row["explanation"] for row in alarms)])
    return automated(not verdict.is_alarming and not alarms, told)


TESTS: tuple[RubricTest[Subject], ...] = (
    RubricTest(
        section="monitoring",
        number=1,
        name="Dependency changes result in notification",
        how="The schema of every raw table was judged on each day of a week, and the libraries the champion was "
        "made with are those installed; what has changed is told, here and in an alert.",
        fault="nobody has looked at a schema; a library is upgraded",
        check=dependencies_are_watched,
    ),
    RubricTest(
        section="monitoring",
        number=2,
        name="Data invariants hold for inputs",
        how="Volume, freshness, schema, nulls, units, duplicates and lateness of every raw day of a week were "
        "judged, and no severe fault stands.",
        fault="half of a day's flights are lost on the way",
        check=inputs_keep_invariants,
    ),
    RubricTest(
        section="monitoring",
        number=3,
        name="Training and serving are not skewed",
        how=f"For every view the features read are recomputed to the bit on the newest day, but for at most "
        f"{percent(_MOST_DIFFERENT)} of the decisions.",
        fault="the weather of the day is changed after the model has read it",
        check=nothing_is_skewed,
    ),
    RubricTest(
        section="monitoring",
        number=4,
        name="Models are not too stale",
        how="The champion is no older than its use case allows, and the newest day has a decision on training again.",
        fault="nobody trains for longer than a model is good",
        check=champion_is_fresh,
    ),
    RubricTest(
        section="monitoring",
        number=5,
        name="Models are numerically stable",
        how="All predictions, weights and losses are numbers in their range, and so are the answers to nulls, "
        "unseen and infinite values.",
        fault="one prediction is no number",
        check=numbers_are_sound,
    ),
    RubricTest(
        section="monitoring",
        number=6,
        name="Computing performance has not regressed",
        how=f"The fastest of some calls with 1 and 1,000 rows takes at most {_SLOWER:g} times what they took "
        f"before the promotion and at least {_LEAST_MS:g} ms, the newest training per row at most {_SLOWER:g} times "
        "the median of those before.",
        fault="a training takes a hundred times as long as the one before; every call takes a tenth of a second",
        hands="Memory is bounded by `compute` of the use case; that it is enough is seen by the run that dies.",
        check=computing_is_as_fast,
    ),
    RubricTest(
        section="monitoring",
        number=7,
        name="Prediction quality has not regressed",
        how="The labelled days of the last week are as good as the holdout allows, by the verdict that alarms "
        "are made of, and no severe alarm on quality stands.",
        fault="the predictions of a week are worth nothing",
        check=quality_has_not_regressed,
    ),
)


def _recent(subject: Subject) -> DayRange:
    """Return the week that ends with the newest day served: what has landed of later days nobody has used."""
    return DayRange(first=subject.newest_day - timedelta(days=_N_DAYS_OF_DATA - 1), last=subject.newest_day)


def _verdicts(subject: Subject) -> Sequence[dict[str, object]]:
    return verdicts_of(subject.warehouse, _recent(subject))


def _named(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()))


def _unsound(weights: bytes) -> Iterator[str]:
    from safetensors.numpy import load

    yield from sorted(name for name, array in load(weights).items() if not np.all(np.isfinite(array)))


def _fastest_ms(model: bytes, rows: Coded, clock: Callable[[], float]) -> float:
    """Return the time of the fastest of some calls: what else the machine does besides makes no call faster."""
    score_coded(model, rows)  # opens the session
    seconds: list[float] = []
    for _ in range(_N_CALLS):
        started = clock()
        score_coded(model, rows)
        seconds.append(clock() - started)
    return 1000 * min(seconds)


def _paces(subject: Subject) -> Iterator[float]:
    """Yield the seconds per 1,000 training rows of each training that was completed up to the day, oldest first."""
    folder = f"{FOLDER}/{subject.use_case.name}"
    paths = subject.store.list(folder)
    trainer = subject.champion.manifest.recipe.trainer
    found: list[tuple[datetime, float]] = []
    for path in (path for path in paths if path.endswith(STARTED)):
        end = path.removesuffix(STARTED) + ENDED
        started = msgspec.json.decode(subject.store.get(path), type=StartedAttempt)
        if end not in paths or started.kind != "training" or started.as_of > subject.day:
            continue
        ended = msgspec.json.decode(subject.store.get(end), type=EndedAttempt)
        if ended.status == "complete" and started.recipe.trainer == trainer and started.n_rows.get("train"):
            found.append((started.started_at, 1000 * ended.seconds / started.n_rows["train"]))
    yield from (pace for _, pace in sorted(found))
