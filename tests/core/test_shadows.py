"""Who scores along: the two champions before, and the baselines as the package keeps them."""

from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core import registry, shadows
from ml_assets.core.baselines import Baseline
from ml_assets.core.days import DayRange
from ml_assets.core.package import EXPECTATIONS, MANIFEST, load_package
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.scoring import score
from ml_assets.core.scoring_days import write_predictions
from ml_assets.core.shadows import SHADOW_SCHEMA, shadow_rows
from ml_assets.core.tasks import CLASSIFICATION, REGRESSION

from .conftest import MemoryStore, make_examples

DAY = date(2013, 2, 1)


def put_in_charge(store, use_case: str, version: str, day: date, package_hash: str = "a" * 64) -> LedgerEntry:
    return registry.promote(
        store,
        use_case=use_case,
        version=version,
        package_hash=package_hash,
        effective_from=day,
        as_of=day,
        reason="passed",
        gates=(),
        recorded_at=datetime(2013, 2, 1, tzinfo=UTC),
        recorded_by="gates",
    )


def test_the_predecessors_are_the_other_versions_that_were_last_in_charge():
    store = MemoryStore()
    for day, version in enumerate(("a", "b", "c", "d")):
        put_in_charge(store, "delay", version, DAY + timedelta(days=day))

    def before(day: int) -> list[str]:
        known = registry.entries(store, "delay")
        return [entry.version for entry in registry.predecessors(known, DAY + timedelta(days=day), most=2)]

    assert [before(day) for day in (-1, 0, 1, 2, 3, 9)] == [[], [], ["a"], ["b", "a"], ["c", "b"], ["c", "b"]]
    registry.rollback(
        store,
        use_case="delay",
        effective_from=DAY + timedelta(days=5),
        reason="worse",
        recorded_at=datetime(2013, 2, 6, tzinfo=UTC),
        recorded_by="a person",
    )
    # Who was rolled back from scores on, beside who is in charge again.
    assert [before(4), before(5)] == [["c", "b"], ["d", "b"]]


@pytest.mark.parametrize("meaning", [CLASSIFICATION, REGRESSION], ids=lambda meaning: meaning.task)
def test_a_baseline_that_was_kept_predicts_a_later_day_to_the_last_bit(meaning):
    rows = make_examples(10)
    train, later = rows.slice(0, 800), rows.slice(800)
    if meaning is REGRESSION:
        label = pc.multiply(pc.fill_null(train["wind_speed_mph"], 0.0), 2.0)
        train = train.set_column(train.column_names.index("label"), "label", label)
    fitted = meaning.fit_baselines(train, ("origin", "wind_speed_mph", "is_holiday"))
    assert [baseline.name for baseline in fitted] == list(meaning.baseline_words)
    kept = msgspec.json.decode(msgspec.json.encode(fitted), type=tuple[Baseline, ...])
    expected = meaning.baselines(train, later, ("origin", "wind_speed_mph", "is_holiday"))
    for baseline in kept:
        assert baseline.predict(later).tolist() == expected[baseline.name].tolist()


def test_the_package_keeps_its_baselines_and_one_of_an_earlier_release_has_none(trained):
    _, candidate, shared, _ = trained
    package = candidate.package
    assert [baseline.name for baseline in package.expectations.baselines] == ["base_rate", "logistic"]
    assert package.expectations.day_noise["log_loss"].n_days >= 2
    store = type(shared)(shared.files)
    folder = f"models/{package.use_case}/{package.version}"
    manifest = msgspec.json.decode(store.files[f"{folder}/{MANIFEST}"])
    del store.files[f"{folder}/{EXPECTATIONS}"], manifest["files"][EXPECTATIONS]
    store.files[f"{folder}/{MANIFEST}"] = msgspec.json.encode(manifest)
    earlier = load_package(store, package.use_case, package.version)
    assert (earlier.expectations.baselines, dict(earlier.expectations.day_noise)) == ((), {})
    assert set(earlier.expectations.expected(np.array([0.2, 0.9, 0.5]))) >= {"log_loss", "brier"}


def test_each_shadow_scores_each_decision_and_one_that_cannot_is_skipped_with_its_reason(trained, monkeypatch):
    _, candidate, store, _ = trained
    champion = candidate.package
    ledger = MemoryStore()
    gone = put_in_charge(ledger, champion.use_case, "2013-01-24-0123456789ab", DAY)
    twin = put_in_charge(ledger, champion.use_case, champion.version, DAY, champion.package_hash)
    examples = make_examples(2)
    rows, skipped = shadow_rows(examples, champion, [twin, gone], store)
    assert rows.schema == SHADOW_SCHEMA
    assert rows["role"].unique().to_pylist() == ["baseline:base_rate", "baseline:logistic", "previous_1"]
    assert rows.num_rows == 3 * examples.num_rows
    previous = rows.filter(pc.field("role") == "previous_1")
    assert previous["decision_id"].to_pylist() == examples["decision_id"].to_pylist()
    assert previous["prediction"].to_pylist() == score(champion, examples).tolist()
    assert [(one.role, one.model_version) for one in skipped] == [("previous_2", gone.version)]
    assert "has no model 2013-01-24-0123456789ab" in skipped[0].reason

    changed = put_in_charge(MemoryStore(), champion.use_case, champion.version, DAY, "b" * 64)
    _, (tampered,) = shadow_rows(examples, champion, [changed], store)
    assert "the ledger put bbbbbbbbbbbb in charge" in tampered.reason

    without_wind = examples.drop_columns(["wind_speed_mph"])
    rows, skipped = shadow_rows(without_wind, champion, [twin], store)
    assert rows["role"].unique().to_pylist() == ["baseline:base_rate"]
    assert [one.role for one in skipped] == ["baseline:logistic", "previous_1"]
    assert all("wind_speed_mph" in one.reason for one in skipped)

    def broken(*_args: object, **_options: object) -> None:
        raise MemoryError("a failure that is nobody's missing package")

    monkeypatch.setattr(shadows, "recall_package", broken)
    with pytest.raises(MemoryError):
        shadow_rows(examples, champion, [twin], store)


def test_days_are_predicted_and_shadowed_in_one_write_whose_repetition_changes_nothing(trained, use_case):
    _, candidate, shared, _ = trained
    champion, store = candidate.package, type(shared)(shared.files)
    days = DayRange(first=date(2013, 1, 30), last=date(2013, 1, 31))
    examples = make_examples(31).filter(pc.field("partition_on") >= pa.scalar(days.first))
    put_in_charge(store, use_case.name, "2013-01-24-0123456789ab", date(2013, 1, 1))
    put_in_charge(store, use_case.name, champion.version, date(2013, 1, 30), champion.package_hash)
    warehouse = DuckDBWarehouse(None)
    warehouse.replace_days({use_case.examples_table: examples}, days)

    def tables() -> list[pa.Table]:
        names = (use_case.predictions_table, use_case.shadow_table)
        return [warehouse.query(f"select * from {name} order by all") for name in names]

    written = write_predictions(
        warehouse, store, use_case, days, run_id="first", predicted_at=datetime(2013, 2, 1, tzinfo=UTC)
    )
    assert [(one.role, one.model_version[:10]) for one in written.skipped] == [("previous_1", "2013-01-24")]
    before = tables()
    assert before[0].num_rows == examples.num_rows
    assert before[1].num_rows == 2 * examples.num_rows
    again = write_predictions(
        warehouse, store, use_case, days, run_id="second", predicted_at=datetime(2013, 2, 2, tzinfo=UTC)
    )
    assert tables() == before
    assert set(again.rows["run_id"].to_pylist()) == {"first"}
    for day in days.dates:
        one = DayRange(first=day, last=day)
        write_predictions(
            warehouse, store, use_case, one, run_id="third", predicted_at=datetime(2013, 2, 3, tzinfo=UTC)
        )
    assert tables() == before
