"""The seven tests of features and data."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from ml_assets.core.baselines import labels_of
from ml_assets.core.days import DayRange
from ml_assets.core.drift import percent
from ml_assets.core.encoding import encode
from ml_assets.core.feature_views import Feature, FeatureView, LatestView, WindowView
from ml_assets.core.importance import LOSSES, N_REPEATS, permutation_importance
from ml_assets.core.labelled_examples import is_sampled
from ml_assets.core.ml_test_score.findings import Finding, RubricTest, automated, by_hand, listed
from ml_assets.core.ml_test_score.reviews import standing_review
from ml_assets.core.ml_test_score.subject import Subject
from ml_assets.core.point_in_time import Pruning, decisions_query, join_query
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.provenance import Lineage
from ml_assets.core.scoring import score_coded
from ml_assets.core.view_costs import view_costs

# Judgements: what no view may cost or lack without a person having looked at it.
_MOST_SECONDS_A_DAY = 60.0
_MOST_BYTES_A_DECISION = 100_000.0
_MOST_NULLS, _MOST_STALE = 0.5, 0.9
_N_DAYS_WEIGHED = 7
_MOST_SCORED = 2_000_000
# Judgement: who adds a feature shall wait for its history no longer than this.
_MOST_SECONDS_OF_A_NEW_FEATURE = 3600.0
_CONFIDENCE = 0.95

_PERSONAL = {
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[a-z]{2,}", re.IGNORECASE),
    "a telephone number": re.compile(r"(?<![\w.])\+\d[\d ()./-]{7,}\d"),
    "an address of the internet": re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"),
    "a social security number": re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"),
}
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)")


def schema_holds(subject: Subject) -> Finding:
    """Hold the feature tables, the model's inputs and the raw contracts against what is declared of them."""
    with subject.warehouse.session():
        broken = [*_undeclared(subject), *_mistyped(subject), *_without_range(subject)]
    n_raw = sum(len(contract.columns) for contract in subject.contracts.values())
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"the {len(subject.inputs)} inputs of {subject.champion.version} are declared with a description, the tables "
        f"of all {len(subject.views)} feature views have the declared columns, and {len(subject.contracts)} contracts "
        f"state type, range and nulls of {n_raw} raw columns, which every landing is held against",
    )


def features_help(subject: Subject) -> Finding:
    """Shuffle each feature view on the champion's holdout: the loss must rise by more than the noise."""
    package, task = subject.champion, subject.use_case.task
    n_views = len(subject.views)
    judged = subject.training_set.test
    share = _MOST_SCORED / (judged.num_rows * (n_views * N_REPEATS + 1))
    judged = judged if share >= 1 else judged.filter(is_sampled(judged["decision_id"], share))
    found = permutation_importance(
        lambda rows: score_coded(package.model, rows),
        encode(judged, package.signature, package.vocabulary),
        labels_of(judged),
        judged["partition_on"].to_numpy(),
        signature=package.signature,
        losses=LOSSES[task],
        metric=None,
        seed=package.manifest.recipe.seed,
        with_features=False,
    )
    gains = {view.name: view.loss_increase for view in found.views}
    idle = [name for name, gain in gains.items() if gain.value <= (gain.margin(_CONFIDENCE) or 0.0)]
    best, least = found.views[0], found.views[-1]
    told = (
        f"{len(gains) - len(idle)} of {len(gains)} feature views are shown to help: shuffled on {found.n_rows:,} "
        f"decisions of the holdout they raise the loss {found.loss:.4g} by {best.loss_increase.value:.2g} "
        f"({best.name}) to {least.loss_increase.value:.2g} ({least.name})"
    )
    return automated(not idle, f"{told}; within the noise: {', '.join(idle)}" if idle else told)


def features_are_affordable(subject: Subject) -> Finding:
    """Measure what each feature view costs a day, and how often it has nothing to say."""
    last = subject.newest_day
    days = DayRange(first=last - timedelta(days=_N_DAYS_WEIGHED - 1), last=last)
    costs = view_costs(
        subject.warehouse,
        subject.views,
        use_case=subject.use_case,
        days=days,
        examples=subject.examples,
        seconds_per_day=subject.bench.seconds_per_day,
    )
    n_decisions = subject.examples.num_rows
    broken: list[str] = []
    for cost in costs:
        limits = {
            "bytes a decision": (cost.bytes_per_day / n_decisions, _MOST_BYTES_A_DECISION),
            "seconds a day": (cost.seconds_per_day or 0.0, _MOST_SECONDS_A_DAY),
            "of its values null": (cost.null_share, _MOST_NULLS),
            "of the decisions without a fresh row": (cost.stale_share, _MOST_STALE),
        }
        broken += [f"{cost.view}: {found:.3g} {what}" for what, (found, most) in limits.items() if found > most]
    if broken:
        return automated(False, listed(broken))
    dearest = max(costs, key=lambda cost: cost.bytes_per_day)
    tables = {cost.table: cost for cost in costs}.values()
    timed = [cost.seconds_per_day for cost in tables if cost.seconds_per_day is not None]
    seconds = f"{sum(timed):.1f} s" if len(timed) == len(tables) else "a time that is not on record"
    return automated(
        True,
        f"{len(costs)} feature views over {days}: a day of their {len(tables)} tables takes "
        f"{sum(cost.bytes_per_day for cost in tables) / 1e6:.1f} MB and {seconds}; the largest is {dearest.table}, "
        f"the share of nulls is at most {percent(max(cost.null_share for cost in costs))}",
    )


def features_keep_the_rules(subject: Subject) -> Finding:
    """Trace every feature to its raw columns: an outcome may only come through a view as late as the outcome."""
    lineage = subject.bench.lineage
    outcomes = {
        (f"raw.{contract.table}", column.name)
        for contract in subject.contracts.values()
        for column in contract.columns
        if column.is_outcome
    }
    forbidden = {subject.use_case.label.table, subject.use_case.examples_table, subject.use_case.predictions_table}
    broken: list[str] = []
    n_traced, by_python = 0, list[str]()
    for view in subject.views:
        read = forbidden & _ancestors(lineage, view.table)
        broken += [f"{view.name} is made from {table}" for table in sorted(read)]
        values = {raw for name in _read_by(view) for raw in raw_columns(lineage, view.table, name)}
        moment = raw_columns(lineage, view.table, view.known_at)
        # Of what Python makes only the tables that it reads are known, not which of their columns.
        read_by_it = [view.table] if view.table in lineage.columns else lineage.parents.get(view.table, ())
        if not read_by_it or not all(table in lineage.columns for table in read_by_it):
            broken.append(f"nothing is known of what {view.table} is made of; materialize the features of a day")
        n_traced += len(values)
        by_python += [] if view.table in lineage.columns else [view.name]
        early = sorted(name for _, name in values & outcomes) if not moment & outcomes else []
        if early:
            broken.append(
                f"{view.name} tells the outcome {', '.join(early)} at {view.known_at}, which no outcome decides"
            )
        n_never = _n_without(subject, view)
        if n_never:
            broken.append(f"{n_never} rows of {view.table} do not say when they became known")
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"the features of {len(subject.views) - len(by_python)} views were traced to {n_traced} raw columns: each of "
        f"the {len(outcomes)} outcomes is read only where known_at is made of an outcome, none of them comes from "
        f"{subject.use_case.label.table}"
        + (f"; of {', '.join(by_python)}, which Python makes, only the tables it reads are known" if by_python else ""),
    )


def privacy_is_kept(subject: Subject) -> Finding:
    """Look for personal data in the text of a day, and for a person's review of who may read it."""
    told = dict(_personal_values(subject))
    if told:
        return by_hand(False, listed([f"{place} holds {what}" for place, what in told.items()]))
    review = standing_review(
        subject.store,
        subject.use_case.name,
        "data_5",
        code_version=subject.champion.manifest.recipe.code_version,
        day=subject.day,
    )
    clean = f"no text of {len(_text_tables(subject))} tables on {subject.newest_day} looks like personal data"
    if review is None:
        return by_hand(False, f"{clean}; nobody has recorded a review of who may read the data")
    return by_hand(
        True, f"{clean}; {review.reviewed_by} reviewed access on {review.reviewed_at:%Y-%m-%d}: {review.finding}"
    )


def features_come_quickly(subject: Subject) -> Finding:
    """Declare a feature that nobody has declared, and compute it for a day as the examples are computed."""
    windows = [view for view in subject.views if isinstance(view, WindowView)]
    if not windows:
        return automated(False, "there is no window view that a new feature could be tried on")
    view = _undeclared_window(windows[0])
    dialect, lead = subject.warehouse.dialect, subject.use_case.decisions.longest_lead
    decisions = decisions_query(subject.use_case, [view], dialect=dialect)
    query = join_query(decisions, [view], dialect=dialect, pruning=Pruning(lead_time=lead))
    started = subject.bench.clock()
    rows = subject.warehouse.query(query, {"first_day": subject.newest_day, "last_day": subject.newest_day})
    seconds = subject.bench.clock() - started
    told = [np.nan_to_num(rows[feature.name].cast(pa.float64()).to_numpy()) for feature in view.features]
    n_told = sum(int(np.count_nonzero(values)) for values in told)
    train_days = len(subject.training_set.days.train)
    is_held = (
        rows.num_rows == subject.examples.num_rows
        and n_told > 0
        and seconds * train_days <= _MOST_SECONDS_OF_A_NEW_FEATURE
    )
    return automated(
        is_held,
        f"what nobody had declared ({', '.join(feature.name for feature in view.features)}) was there for "
        f"{rows.num_rows:,} of {subject.examples.num_rows:,} decisions of {subject.newest_day}, {n_told:,} values "
        f"neither null nor 0, in at most {_rounded_up(seconds)} s from one declaration, so in about "
        f"{_rounded_up(seconds * train_days)} s for the {train_days} days of a training",
    )


def feature_code_is_tested(subject: Subject) -> Finding:
    """Run the examples that the code of every feature table is tested by."""
    results = subject.bench.test_features()
    tables = list(dict.fromkeys(view.table for view in subject.views))
    untested = [table for table in tables if not results.get(table)]
    failed = [
        f"{name} of {table}: {status}"
        for table in tables
        for name, status in results.get(table, {}).items()
        if status != "pass"
    ]
    n_examples = sum(len(results.get(table, {})) for table in tables)
    if untested or failed:
        return automated(False, listed([*(f"{table} has no example" for table in untested), *failed]))
    return automated(True, f"{n_examples} examples of the code of {len(tables)} feature tables were run, and all hold")


TESTS: tuple[RubricTest[Subject], ...] = (
    RubricTest(
        section="data",
        number=1,
        name="Feature expectations are captured in a schema",
        how="Types, ranges and nulls of every raw column, and name, kind and description of every feature, are "
        "declared; the tables and the champion's inputs are as declared.",
        fault="a feature column changes its type in the warehouse; a raw number loses its range",
        check=schema_holds,
    ),
    RubricTest(
        section="data",
        number=2,
        name="All features are beneficial",
        how="Each feature view is shuffled on the champion's holdout; its loss must rise by more than the noise "
        "of days.",
        fault="a view of noise is added to the inputs of a model",
        hands="Single features are judged by people, in the candidate's report; the ablation trains without each view.",
        check=features_help,
    ),
    RubricTest(
        section="data",
        number=3,
        name="No feature's cost is too much",
        how=f"Of each view over a week: at most {_MOST_BYTES_A_DECISION:,.0f} bytes a decision, "
        f"{_MOST_SECONDS_A_DAY:.0f} s a day, {percent(_MOST_NULLS)} nulls and {percent(_MOST_STALE)} decisions "
        "without a fresh row.",
        fault="the weather stations stay silent, so that a view has nothing to say",
        check=features_are_affordable,
    ),
    RubricTest(
        section="data",
        number=4,
        name="Features adhere to meta-level requirements",
        how="Every feature is traced to raw columns: an outcome only through a view whose known_at is made of "
        "an outcome, nothing from labels or predictions, every row with the moment it became known.",
        fault="a view tells a flight's delay at the time of its schedule",
        check=features_keep_the_rules,
    ),
    RubricTest(
        section="data",
        number=5,
        name="The data pipeline has appropriate privacy controls",
        how="No text of the day and of the training set looks like personal data, and a person has reviewed who "
        "may read it.",
        fault="an e-mail address lands in a text column; the review is of other code",
        hands="Who may read bucket and datasets, and what is deleted when a person asks for it, lies outside of "
        "this project: `ml-assets review --test data_5`, once a year and after each change of the code.",
        is_reviewed=True,
        check=privacy_is_kept,
    ),
    RubricTest(
        section="data",
        number=6,
        name="New features can be added quickly",
        how="A window that nobody has declared is computed for a day of decisions from one declaration, fast "
        "enough that the history of a training is there within an hour.",
        fault="the events behind the view become known a month late",
        hands="That a person also has the idea, and reads the ablation, takes its time.",
        check=features_come_quickly,
    ),
    RubricTest(
        section="data",
        number=7,
        name="All input feature code is tested",
        how="The examples beside the code of every feature table are run, those of dbt and of Python.",
        fault="the SQL of a feature draws its line at another minute; a feature table has no example",
        check=feature_code_is_tested,
    ),
)


def raw_columns(lineage: Lineage, table: str, column: str) -> frozenset[tuple[str, str]]:
    """Return the raw columns that a column of a table is made from, each (raw.table, column).

    What Python makes ends the descent: only its own code knows. Such a column has none.
    """
    found: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(table, column)]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one[0].startswith("raw."):
            found.add(one)
        waiting += lineage.columns.get(one[0], {}).get(one[1], [])
    return frozenset(found)


def _read_by(view: FeatureView) -> Iterator[str]:
    """Yield the columns of its table that a view makes features of."""
    if isinstance(view, LatestView):
        yield from (feature.name for feature in view.features)
    else:
        yield from (aggregate.of for aggregate in view.aggregates if aggregate.of)


def _undeclared(subject: Subject) -> Iterator[str]:
    signature = subject.champion.signature
    read = {column.name for column in (*signature.numeric, *signature.categorical)}
    declared = {feature.name: feature for feature in subject.inputs}
    yield from (f"the model reads {name}, which no view declares" for name in sorted(read - set(declared)))
    yield from (f"{name} is declared, and the model does not read it" for name in sorted(set(declared) - read))
    yield from (f"{name} has no description" for name, feature in declared.items() if not feature.description)


def _mistyped(subject: Subject) -> Iterator[str]:
    for view in subject.views:
        columns = subject.warehouse.columns(view.table)
        if columns is None:
            yield f"{view.table} of {view.name} is absent"
            continue
        numeric = [feature.name for feature in view.features if feature.kind == "numeric"]
        if isinstance(view, WindowView):
            numeric = [a.of for a in view.aggregates if a.of and a.function != "count"]
        absent = [name for name in (*view.entity, view.known_at, *_read_by(view)) if name not in columns]
        yield from (f"{view.table} has no column {name}" for name in absent)
        yield from (
            f"{name} of {view.table} is {columns[name]}, declared as a number"
            for name in numeric
            if name in columns and re.search("CHAR|STRING|TEXT", columns[name].upper())
        )


def _without_range(subject: Subject) -> Iterator[str]:
    for contract in subject.contracts.values():
        for column in contract.columns:
            is_number = pat.is_integer(column.type) or pat.is_floating(column.type)
            if is_number and (column.minimum is None or column.maximum is None):
                yield f"raw.{contract.table}.{column.name} has no range"


def _ancestors(lineage: Lineage, table: str) -> set[str]:
    seen: set[str] = set()
    waiting = [table]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += lineage.parents.get(one, ())
    return seen


def _n_without(subject: Subject, view: FeatureView) -> int:
    sql = Sql(dialect=subject.warehouse.dialect)
    where = f"{sql.of_days()} AND {sql.name(view.known_at)} IS NULL"
    query = f"SELECT COUNT(*) AS n_rows FROM {sql.table(view.table)} WHERE {where}"
    found = subject.warehouse.query(query, {"first_day": subject.days.first, "last_day": subject.days.last})
    return cast("int", found["n_rows"][0].as_py())


def _text_tables(subject: Subject) -> Sequence[str]:
    daily = [f"raw.{contract.table}" for contract in subject.contracts.values() if contract.is_partitioned]
    return [*daily, subject.use_case.examples_table, "its training set"]


def _personal_values(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield each column of text that holds what looks like personal data, and what that looks like."""
    sql, day = Sql(dialect=subject.warehouse.dialect), subject.newest_day
    for contract in subject.contracts.values():
        if not contract.is_partitioned or subject.warehouse.columns(f"raw.{contract.table}") is None:
            continue
        names = [column.name for column in contract.columns if pat.is_string(column.type)]
        query = f"SELECT DISTINCT {sql.names(names)} FROM {sql.table(f'raw.{contract.table}')} WHERE {sql.of_days()}"
        if names:
            rows = subject.warehouse.query(query, {"first_day": day, "last_day": day})
            yield from _personal_in(f"raw.{contract.table}", rows)
    examples = subject.examples
    text = [field.name for field in examples.schema if pat.is_string(field.type) and field.name != "decision_id"]
    yield from _personal_in(subject.use_case.examples_table, examples.select(text))
    known = [column.name for column in subject.champion.signature.categorical]
    yield from _personal_in("its training set", subject.training_set.train.select(known))


def _personal_in(place: str, rows: pa.Table) -> Iterator[tuple[str, str]]:
    for name in rows.column_names:
        values = cast("list[str | None]", rows[name].unique().to_pylist())
        found = dict.fromkeys(looks for value in values if value and (looks := personal(value)))
        yield from ((f"{place}.{name}", looks) for looks in found)


def personal(text: str) -> str:
    """Say what personal data a text looks like; empty for none.

    >>> personal("ada@example.com"), personal("N14228"), personal("4111 1111 1111 1111"), personal("4111111111111112")
    ('an e-mail address', '', 'a payment card', '')
    """
    looks = (what for what, pattern in _PERSONAL.items() if pattern.search(text))
    is_card = any(_ends_as_cards_do(number) for number in _CARD.findall(text))
    return next(looks, "a payment card" if is_card else "")


def _ends_as_cards_do(number: str) -> bool:
    """Tell whether the last digit is the check digit of the others (Luhn, ISO/IEC 7812), which an id has rarely."""
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0


def _undeclared_window(view: WindowView) -> WindowView:
    """Return a view like this one with a window that it does not have."""
    longest = max(*view.windows, timedelta(hours=6))
    shorter = (timedelta(hours=hours) for hours in range(5, 1000) if timedelta(hours=hours) <= longest)
    window = next((window for window in shorter if window not in view.windows), longest + timedelta(hours=1))
    name = f"{view.name}_tried"
    features = tuple(
        Feature(name=WindowView.feature_name(name, aggregate.name, window), kind="numeric", view=name)
        for aggregate in view.aggregates
    )
    return replace(view, name=name, windows=(window,), features=features)


def _rounded_up(seconds: float) -> int:
    """Return seconds as the next 1, 2 or 5 times a power of ten: the same sentence on machines about as fast.

    >>> _rounded_up(0.3), _rounded_up(3.4), _rounded_up(51.0)
    (1, 5, 100)
    """
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return next(step for step in steps if step >= seconds)
