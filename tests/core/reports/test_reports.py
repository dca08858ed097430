import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest

from ml_assets.core.errors import BadInput
from ml_assets.core.evaluation import CalibrationBin, Metrics, calibration_curve
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.performance import pool_histograms
from ml_assets.core.promotion import Evidence, ServingCost, judge
from ml_assets.core.reports import candidate_report, chart_svg
from ml_assets.core.reports.charts import calibration, chart_png, lines_by_day
from ml_assets.core.reports.curve_figures import calibration_of_histogram
from ml_assets.core.reports.training_charts import optimisation_history, parameter_importance
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule
from ml_assets.core.studies import TrialRecord
from ml_assets.core.trainers.segments import SegmentOutcome
from ml_assets.core.trainers.starts import StartOutcome, WarmStartRecord
from tests.core.reports.world import Page, World

SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)">'
GOOD = Metrics(
    roc_auc=0.72, pr_auc=0.48, log_loss=0.45, brier=0.15, calibration_error=0.02, n_rows=1000, positive_share=0.25
)

BASE_RATE = replace(GOOD, roc_auc=0.5, pr_auc=0.25, log_loss=0.56)
LOGISTIC = replace(GOOD, roc_auc=0.70, log_loss=0.46)
COST = ServingCost(model_bytes=300_000, one_row_ms=0.05, thousand_rows_ms=1.2)


def over(other: Metrics) -> Comparison:
    """Compare the good candidate with another model, with hardly any noise."""

    def gain(value: float) -> Estimate:
        return Estimate(value=value, standard_error=1e-4, n_days=21)

    return Comparison(
        other=other,
        gains={
            "log_loss": gain(other.log_loss - GOOD.log_loss),
            "roc_auc": gain((GOOD.roc_auc or 0) - (other.roc_auc or 0)),
            "pr_auc": gain((GOOD.pr_auc or 0) - (other.pr_auc or 0)),
        },
    )


def evidence(champion: Metrics | None, slices: tuple[SliceQuality, ...] = ()) -> Evidence:
    return Evidence(
        candidate=GOOD,
        baselines={"logistic": over(LOGISTIC), "base_rate": over(BASE_RATE)},
        champion=over(champion) if champion else None,
        slices=slices,
        largest_parity_difference=1e-7,
        leaks=LeakCheck(
            n_labels_too_late=0,
            newest_label_known_at=datetime(2013, 7, 1, 3, tzinfo=UTC),
            as_of_at=datetime(2013, 7, 1, 4, tzinfo=UTC),
            last_day_seen=date(2013, 6, 8),
            first_holdout_day=date(2013, 6, 10),
        ),
        sample_fraction=1.0,
    )


def candidate(**changes: object) -> str:
    labels, predictions = np.arange(400) % 4 == 0, np.linspace(0.01, 0.9, 400)
    found = evidence(replace(GOOD, log_loss=0.44))
    arguments: dict[str, object] = {
        "use_case": "arrival_delay",
        "version": "2013-07-01-3fa2c1d0beef",
        "as_of": date(2013, 7, 1),
        "evidence": found,
        "champion": "2013-06-24-77aa01bc23de",
        "confidence": 0.95,
        "verdict": judge(found, cost=COST, rule=PromotionRule(against_champion="not_worse")),
        "calibration": calibration_curve(labels, predictions),
        "epochs": [(1, 0.52, 0.50), (2, 0.50, 0.48), (3, 0.49, 0.49)],
        "facts": {"Training rows": "121 043"},
        "links": {},
    }
    return candidate_report(**(arguments | changes))  # pyright: ignore[reportArgumentType]


def test_a_candidates_facts_stay_text():
    page = Page(candidate(facts={SCRIPT: SCRIPT}, version=SCRIPT, champion=SCRIPT))
    assert SCRIPT in page.text
    assert not {"script", "img"} & set(page.elements)


@pytest.mark.parametrize("address", ["javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "JAVASCRIPT:x"])
def test_a_link_that_runs_a_script_is_refused(address: str):
    with pytest.raises(BadInput, match="expected an address"):
        candidate(links={"open": address})


def test_a_person_sees_which_segments_use_the_parent_and_why_the_largest_first():
    small = SegmentOutcome(value=SCRIPT, n_train=80, n_validation=9, has_own_model=False, why_parent="80 train rows")
    large = SegmentOutcome(
        value="JFK", n_train=81234, n_validation=4321, has_own_model=True, parent_loss=0.46, own_loss=0.45, margin=0.001
    )
    page = Page(candidate(segments=(small, large), segments_by="origin"))
    assert "1 of 2 values of origin have a model of their own" in page.text
    assert "JFK81\N{NARROW NO-BREAK SPACE}2344\N{NARROW NO-BREAK SPACE}3210.46000.45000.0010its own model" in page.text
    assert f"{SCRIPT}809———the parent: 80 train rows" in page.text
    assert page.text.index("JFK") < page.text.index(SCRIPT)
    assert not {"script", "img"} & set(page.elements)
    assert "of their own" not in Page(candidate()).text


def test_a_candidates_intervals_stand_below_its_figures_and_a_missing_one_is_a_dash():
    found = {"roc_auc": (0.70123, 0.73999), "brier": (0.14, 0.16)}
    text = Page(candidate(intervals=found)).text
    assert "its 95 % interval0.7012–0.7400——0.1400–0.1600—" in text  # noqa: RUF001 - as the page shows it
    assert text.index("its 95 % interval") < text.index("base rate")
    assert "its 95 % interval" not in Page(candidate()).text


def test_a_report_needs_nothing_but_itself():
    html = candidate()
    page = Page(html)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    # An inline style would be blocked by the policy, an address would be fetched.
    assert not [name for name, _ in page.attributes if name in {"style", "src", "srcset"}]
    assert not [value for name, value in page.attributes if name in {"href", "xlink:href"}]
    assert "@import" not in html
    assert "url(http" not in html


def test_the_style_sheet_matches_the_hash_in_the_policy():
    html = candidate()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(value for name, value in Page(html).attributes if value.startswith("default-src"))
    assert f"style-src 'sha256-{digest}'" in policy


def test_the_same_input_gives_the_same_bytes_whatever_was_drawn_before():
    first = candidate()
    chart_svg(calibration([CalibrationBin(mean_prediction=0.1, positive_share=0.2, n_rows=5)]), name="other")
    assert candidate() == first


def test_ids_are_unique_on_the_page():
    ids = [value for name, value in Page(candidate()).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_refused_candidate_says_why_and_a_good_one_that_it_may_serve():
    refused = Page(candidate()).text
    assert "May not serve" in refused
    assert "Log loss 0.4500 should be at most the champion's 0.4400 plus the noise of 0.0002." in refused
    found = evidence(None)
    verdict = judge(found, cost=COST, rule=PromotionRule(against_champion="not_worse"))
    accepted = Page(candidate(evidence=found, verdict=verdict, champion="", epochs=[], calibration=[]))
    assert "It passed all 16 gates." in accepted.text
    assert "figure" not in accepted.elements


def test_a_candidate_is_shown_beside_each_model_and_by_slice_with_intervals():
    # Students t with 20 degrees of freedom has its 95 % quantile at 1.7247.
    part = SliceQuality(
        column="carrier",
        value=SCRIPT,
        n_rows=1234,
        mean_label=0.5,
        figures={
            "log_loss": Estimate(value=0.5, standard_error=0.01, n_days=21),
            "roc_auc": Estimate(value=0.7, standard_error=0.02, n_days=21),
        },
        gains={
            "log_loss": Estimate(value=-0.03, standard_error=0.001, n_days=21),
            "roc_auc": Estimate(value=0.04, standard_error=0.002, n_days=21),
        },
    )
    page = Page(candidate(evidence=evidence(replace(GOOD, log_loss=0.44), (part,))))
    words = " ".join(page.text.split())
    assert "champion 2013-06-24-77aa01bc23de-0.0100 ± 0.00020.0000 ± 0.0002" in words
    for figure in ("50 %", "0.5000 ± 0.0172", "-0.0300 ± 0.0017", "0.7000 ± 0.0345", "0.0400 ± 0.0034"):
        assert figure in words, figure
    assert "In 90 % of such holdouts" in words
    assert "gains there over the champion 2013-06-24-77aa01bc23de" in words
    assert SCRIPT in page.text
    assert "script" not in page.elements


def test_a_missing_value_leaves_a_gap_in_a_line():
    days = [date(2013, 7, 1 + i) for i in range(5)]
    svg = chart_svg(lines_by_day(days, {"ROC AUC": [0.7, 0.72, None, 0.71, 0.73]}, y_title="ROC AUC"), name="line")
    line = re.search(r'class="mark-line.*?<path[^>]* d="([^"]*)"', svg, re.DOTALL)
    assert line
    assert line[1].count("M") == 2


def test_dates_are_drawn_as_they_are_in_any_time_zone():
    days = [date(2013, 7, 4), date(2013, 7, 5)]
    svg = chart_svg(lines_by_day(days, {"ROC AUC": [0.7, 0.72]}, y_title="ROC AUC"), name="line")
    assert "4 Jul" in svg
    assert "5 Jul" in svg
    assert "3 Jul" not in svg


def test_the_calibration_of_pooled_days_keeps_every_row():
    performance = World().monitored.performance
    bins = calibration_of_histogram(pool_histograms(performance))
    assert sum(b.n_rows for b in bins) == sum(performance.column("n_labelled").to_pylist())
    assert 8 <= len(bins) <= 10
    assert [b.mean_prediction for b in bins] == sorted(b.mean_prediction for b in bins)


def trial(number: int, state: str, loss: float | None) -> TrialRecord:
    return TrialRecord(number=number, state=state, parameters={}, loss=loss, n_epochs=1, reason="")  # pyright: ignore


def test_the_history_of_a_search_draws_each_trial_and_the_lowest_complete_loss_so_far():
    trials = [
        *(trial(0, "complete", 0.50), trial(1, "pruned", 0.40), trial(2, "failed", None), trial(3, "complete", 0.45)),
        *(trial(4, "complete", 0.48), trial(5, "running", 0.3), trial(6, "complete", 0.44)),
    ]
    spec = optimisation_history(trials, default_loss=0.5, y_title="Loss")
    points = [(row["number"], row["loss"], row["state"]) for row in spec["datasets"]["rows"]]
    assert points == [
        *((0, 0.50, "complete"), (1, 0.40, "pruned"), (3, 0.45, "complete")),
        *((4, 0.48, "complete"), (6, 0.44, "complete")),
    ]
    steps = [(row["number"], row["loss"]) for row in spec["datasets"]["steps"]]
    assert steps == [(0, 0.50), (3, 0.45), (4, 0.45), (6, 0.44)]
    assert spec["datasets"]["level"] == [{"loss": 0.5, "label": "defaults"}]
    assert "defaults" in chart_svg(spec, name="history")
    assert chart_png(optimisation_history([], default_loss=None, y_title="Loss")).startswith(b"\x89PNG")


def test_parameters_are_drawn_from_the_most_important_down():
    spec = parameter_importance({"dropout": 0.2, "learning_rate": 0.7, "n_epochs": 0.1})
    svg = chart_svg(spec, name="importance")
    assert svg.index("learning_rate") < svg.index("dropout") < svg.index("n_epochs")
    assert [row["share"] for row in spec["datasets"]["rows"]] == [0.7, 0.2, 0.1]


def test_a_candidate_shows_what_the_champions_weights_were_worth():
    cold = StartOutcome(validation_loss=0.48123, n_epochs=5, best_epoch=4, epochs_to_other=None)
    warm = StartOutcome(validation_loss=0.47001, n_epochs=3, best_epoch=2, epochs_to_other=1)
    text = Page(candidate(warm_start=WarmStartRecord(chosen="warm", reason="", cold=cold, warm=warm))).text
    assert "validation chose the warm one" in text
    # The cold one was best in epoch 4; the warm one had that loss in epoch 1.
    assert "The warm one reached the loss the cold one had at its best 3 epochs earlier." in text
    assert text.index("warm0.47001321") < text.index("cold0.4812354\N{EM DASH}")

    late = replace(warm, epochs_to_other=5)
    text = Page(candidate(warm_start=WarmStartRecord(chosen="cold", reason="", cold=cold, warm=late))).text
    assert "at its best 1 epoch later." in text
    never = replace(warm, epochs_to_other=None)
    text = Page(candidate(warm_start=WarmStartRecord(chosen="cold", reason="", cold=cold, warm=never))).text
    assert "The warm one never reached the loss the cold one had at its best." in text

    alone = Page(candidate(warm_start=WarmStartRecord(chosen="cold", reason="it has no weights", cold=cold))).text
    assert "Trained from nothing: it has no weights." in alone
    assert "Cold or warm" not in Page(candidate()).text
