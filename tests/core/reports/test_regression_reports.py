"""The reports on a regression: figures in the unit of the label, its own charts, and no word of probabilities."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from ml_assets.core.encoding import Output
from ml_assets.core.feature_views import Feature
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance
from ml_assets.core.promotion import Evidence, ServingCost, judge
from ml_assets.core.reference import build_reference
from ml_assets.core.regression import evaluate_regression, prediction_bins
from ml_assets.core.reports import candidate_report, curve_spec, monitoring_report
from ml_assets.core.reports.charts import chart_png
from ml_assets.core.reports.monitored_rows import Monitored
from ml_assets.core.reports.regression_charts import error_by_prediction
from ml_assets.core.slices import slice_qualities
from ml_assets.core.spec import PromotionRule
from tests.core.reports.world import Names, drift_rows, entry

DAY = date(2013, 7, 5)
FOREIGN_WORDS = ("ROC AUC", "came true", "log loss", "Log loss", "nats", "robability", "base rate", "30 %")
OUTPUT = Output(task="regression", unit="minutes")


def _flights(n_days: int, n_per_day: int, seed: int) -> pa.Table:
    """Minutes of flights, what a model predicts, and a column of distances; some without an outcome."""
    draw = np.random.default_rng(seed)
    n = n_days * n_per_day
    distance = draw.uniform(100, 2500, n)
    minutes = 30 + distance / 8 + draw.normal(0, 10, n)
    return pa.table(
        {
            "partition_on": pa.array([DAY - timedelta(days=n_days - 1 - row // n_per_day) for row in range(n)]),
            "distance_miles": distance,
            "origin": draw.choice(["EWR", "JFK"], n),
            "prediction": 30 + distance / 8,
            "label": pa.array(minutes, mask=draw.random(n) < 0.02),
            "no_label_reason": pa.nulls(n, pa.string()),
        }
    )


def _candidate() -> str:
    flights = _flights(10, 200, 1)
    flights = flights.filter(flights["label"].is_valid())
    y, p = flights["label"].to_numpy(), flights["prediction"].to_numpy()
    resamples = DayResamples.of(flights["partition_on"].to_numpy(), seed=1)
    mean, linear = np.full(len(y), y.mean()), p + 20
    rule = PromotionRule(against_champion="not_worse")
    evidence = Evidence(
        candidate=evaluate_regression(y, p),
        baselines={
            "mean": resamples.compare(y, p, mean, task="regression"),
            "linear": resamples.compare(y, p, linear, task="regression"),
        },
        champion=None,
        slices=slice_qualities(
            flights, ["origin"], y=y, candidate=p, other=linear, resamples=resamples, rule=rule, task="regression"
        ),
        largest_parity_difference=1e-7,
        leaks=LeakCheck(
            n_labels_too_late=0,
            newest_label_known_at=datetime(2013, 7, 1, 3, tzinfo=UTC),
            as_of_at=datetime(2013, 7, 1, 4, tzinfo=UTC),
            last_day_seen=date(2013, 6, 8),
            first_holdout_day=date(2013, 6, 10),
        ),
        sample_fraction=1.0,
        output=OUTPUT,
    )
    return candidate_report(
        use_case="air_time",
        question="How many minutes will this flight be in the air?",
        version="2013-07-01-3fa2c1d0beef",
        as_of=date(2013, 7, 1),
        evidence=evidence,
        champion="",
        confidence=0.95,
        verdict=judge(evidence, cost=ServingCost(model_bytes=1, one_row_ms=1, thousand_rows_ms=1), rule=rule),
        calibration=prediction_bins(y, p),
        epochs=[(1, 20.0, 21.0), (2, 10.0, 11.25)],
        facts={},
        links={},
        intervals={"rmse": (9.5, 10.5)},
    )


def test_the_page_on_a_candidate_has_errors_in_minutes_slices_gains_and_its_charts():
    page = _candidate()
    assert "May serve" in page
    assert not [word for word in FOREIGN_WORDS if word in page]
    assert "Validation was best in epoch 2, with 11.25 minutes." in page
    assert "9.5\N{EN DASH}10.5" in page
    assert "over the\nlinear baseline" in page
    for title in ("<h3>Predicted and happened by tenths</h3>", "<h3>Error by prediction</h3>", "<h3>Training</h3>"):
        assert title in page
    for axis in ("RMSE (minutes)", "Error (minutes)", "Predicted, mean of the bin (minutes)"):
        assert axis in page
    assert "<th>Slice</th>" in page
    assert "origin EWR" in page
    assert _candidate() == page


def _monitoring(*, has_outcomes: bool = True) -> str:
    june, july = _flights(20, 300, 2), _flights(7, 300, 3)
    inputs = [
        Feature(name="distance_miles", kind="numeric", view="v"),
        Feature(name="origin", kind="categorical", view="v"),
    ]
    reference = build_reference(june, inputs, june["prediction"].to_numpy())
    labelled = june.filter(june["label"].is_valid())
    champion = entry(1, date(2013, 6, 29), use_case="air_time")
    names = Names(view="v", explanation="as in training")
    drift, performance = list[dict[str, object]](), [PERFORMANCE_SCHEMA.empty_table()]
    for back in reversed(range(7)):
        day = DAY - timedelta(days=back)
        rows = july.filter(pa.array(july["partition_on"].to_numpy() == np.datetime64(day)))
        drift += drift_rows(reference, rows, day=day, version=champion.version, names=names)
        of_day = measure_performance(
            rows,
            use_case="air_time",
            day=day,
            model_version=champion.version,
            task="regression",
            edges=reference.prediction.edges,
        )
        performance += [of_day] if has_outcomes else []
    table = pa.Table.from_pylist(drift)
    return monitoring_report(
        use_case="air_time",
        question="How many minutes will this flight be in the air?",
        day=DAY,
        monitored=Monitored(
            drift=table, drift_of_days=table, performance=pa.concat_tables(performance), shadows=pa.table({})
        ),
        champion=champion,
        changes=[champion],
        holdout=evaluate_regression(labelled["label"].to_numpy(), labelled["prediction"].to_numpy()),
        reference=reference,
        links={},
        unit="minutes",
    )


def test_the_page_of_a_day_has_daily_errors_with_the_holdouts_level_and_errors_by_tenths():
    page = _monitoring()
    assert "All is well" in page
    assert not [word for word in FOREIGN_WORDS if word in page]
    for title in ("MAE (minutes)", "RMSE (minutes)", "Predicted and happened (minutes)"):
        assert f"<h3>{title}</h3>" in page
    assert "<h3>Predicted and happened by tenths</h3>" in page
    assert "holdout 8." in page
    assert '<th class="n">RMSE (minutes)</th>' in page


def test_without_an_outcome_the_page_says_so():
    assert "No outcome is known yet" in _monitoring(has_outcomes=False)


def test_a_chart_of_one_bin_of_one_number_can_be_drawn():
    bins = prediction_bins([5.0, 5.0], [5.0, 5.0])
    for spec in (curve_spec(bins, unit=None), error_by_prediction(bins, unit=None)):
        assert chart_png(spec).startswith(b"\x89PNG")
