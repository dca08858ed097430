"""The pages on what a model leans on and on what each feature view adds, as a reader sees them."""

from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest

from ml_assets.core.ablation_records import Ablation, ViewGain
from ml_assets.core.encoding import Input, Output
from ml_assets.core.errors import BadInput
from ml_assets.core.importance import Importance, Importances
from ml_assets.core.insights import Insights
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.partial_dependence import PartialDependence, Point
from ml_assets.core.reports import ablation_report
from ml_assets.core.reports.charts import chart_svg
from ml_assets.core.reports.insight_charts import dependence, importance, slices, view_gains
from ml_assets.core.reports.insights import insight_sections, slice_charts
from ml_assets.core.slices import SliceQuality
from ml_assets.core.tasks import meaning_of
from ml_assets.core.view_costs import ViewCost

PROBABILITY = Output()
SCRIPT = "<script>alert(1)</script>"


class Text(HTMLParser):
    """The elements and the text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data.replace("\N{NO-BREAK SPACE}", " "))

    @property
    def text(self) -> str:
        return " ".join(self.words)


def estimate(value: float, error: float | None = 0.01) -> Estimate:
    return Estimate(value=value, standard_error=error, n_days=21)


def gain(view: str, value: float) -> ViewGain:
    return ViewGain(view=view, n_columns=2, gain=value, margin=0.01, importance=estimate(0.03))


def cost(view: str, **changes: object) -> ViewCost:
    found = ViewCost(
        view=view,
        table="features.feat_weather",
        is_window=False,
        n_columns=2,
        null_share=0.25,
        stale_share=0.0,
        age_p50_hours=0.5,
        age_p95_hours=2.75,
        max_age_hours=72.0,
        rows_per_day=1234.4,
        bytes_per_day=56_000.0,
        seconds_per_day=0.125,
    )
    return replace(found, **changes)


ABLATION = Ablation(
    use_case="arrival_delay",
    as_of=date(2013, 7, 1),
    training_set="3f" * 32,
    first_validation_day=date(2013, 5, 25),
    last_validation_day=date(2013, 6, 7),
    n_train=30_000,
    n_train_available=126_408,
    n_validation=12_559,
    n_seeds=3,
    full_loss=0.4398,
    seed_noise=0.0012,
    views=(gain("weather", 0.02), gain("schedule", 0.003), gain(SCRIPT, -0.02)),
)
COSTS = [cost("weather"), cost("schedule", age_p50_hours=None, age_p95_hours=None, seconds_per_day=None), cost(SCRIPT)]
CURVE = PartialDependence(
    feature=Input(name="wind_speed_mph", view="weather", description="Mean wind.", unit="mph"),
    points=(
        Point(value=1.0, mean=0.2, low=0.15, high=0.25, share=0.5),
        Point(value=9.0, mean=0.4, low=0.3, high=0.5, share=0.25),
        Point(value=None, mean=0.3, low=0.3, high=0.3, share=0.25),
    ),
    n_rows=500,
)
CATEGORIES = PartialDependence(
    feature=Input(name="carrier", view="schedule", description="", kind="text"),
    points=(
        Point(value="UA", mean=0.2, low=0.15, high=0.25, share=0.6),
        Point(value=None, mean=0.3, low=0.3, high=0.3, share=0.4),
    ),
    n_rows=500,
    n_other=4,
)


def insights(n_features: int = 18, *, output: Output = PROBABILITY) -> Insights:
    found = [
        Importance(name=f"feature_{n}", loss_increase=estimate(0.1 / (n + 1)), metric_drop=estimate(0.05))
        for n in range(n_features)
    ]
    views = (Importance(name="weather", loss_increase=estimate(0.2, None), metric_drop=None),)
    importances = Importances(features=tuple(found), views=views, loss=0.4, n_rows=2124, n_repeats=3)
    return Insights(output=output, importances=importances, curves=(CURVE, CATEGORIES))


def part(column: str, value: str, roc_auc: float) -> SliceQuality:
    figure = estimate(roc_auc)
    return SliceQuality(
        column=column,
        value=value,
        n_rows=300,
        mean_label=0.2,
        figures={"log_loss": figure, "roc_auc": figure},
        gains={"log_loss": figure, "roc_auc": figure},
    )


def test_the_page_says_what_each_view_adds_beside_the_noise_and_what_it_costs():
    text = Text(ablation_report(ABLATION, COSTS, question="Late?", loss="log loss")).text
    rows = text[text.index("Seconds") :]
    weather, schedule = rows[: rows.index("schedule")], rows[rows.index("schedule") :]
    for figure in ("+0.0200 ± 0.0100", "helps", "25 %", "30 min, 2.75 h", "of 3 d", "feat_weather", "0.125", "56"):
        assert figure in weather
    assert "1\N{NARROW NO-BREAK SPACE}234" in weather
    assert "within the noise" in schedule
    assert "hurts" in schedule
    assert "—, —" in schedule
    assert "2013-05-25 to 2013-06-07" in text


def test_no_name_can_run_as_a_script_and_no_link_either():
    page = ablation_report(
        ABLATION, COSTS, question=SCRIPT, loss="log loss", links={"the candidate": "./candidate-1.html"}
    )
    assert "script" not in Text(page).elements
    assert 'href="./candidate-1.html"' in page
    with pytest.raises(BadInput, match="leads to"):
        ablation_report(ABLATION, COSTS, question="", loss="log loss", links={"x": "javascript:alert(1)"})


def test_the_same_input_gives_the_same_page():
    assert ablation_report(ABLATION, COSTS, question="", loss="log loss") == ablation_report(
        ABLATION, COSTS, question="", loss="log loss"
    )


def test_the_sections_show_the_largest_importances_and_keep_all_in_figures():
    sections = insight_sections(insights(), confidence=0.95)
    # t(20) at 0.95 is 1.7247.
    assert sections.features[0] == ("feature_0", "+0.1000 ± 0.0172", "+0.0500 ± 0.0172")
    assert len(sections.features) == 18
    assert sections.views == [("weather", "+0.2000", "—")]
    views, features = sections.importance_charts
    assert "weather" in views.svg
    assert "feature_14" in features.svg
    assert "feature_15" not in features.svg
    assert features.caption.endswith("3 more are in the table.")
    assert (sections.n_rows, sections.n_repeats, sections.n_days) == (2124, 3, 21)


def test_a_curve_says_its_unit_and_how_often_the_value_is_missing():
    wind, carrier = insight_sections(insights(), confidence=0.95).curves
    assert wind.caption == "Mean wind. Missing in 25 % of the training rows."
    assert "missing" in wind.svg
    assert "Mph" in wind.svg
    assert carrier.caption.startswith("Missing in 40 % of the training rows. The most frequent categories; 4 more")
    assert "UA (60%)" in carrier.svg


def test_a_regression_is_explained_in_its_unit_and_without_a_ranking():
    sections = insight_sections(insights(output=Output(task="regression", unit="minutes")), confidence=0.95)
    assert sections.metric == ""
    assert "Predicted minutes" in sections.curves[0].svg


def test_charts_carry_the_figures_they_are_given():
    bars = importance(insights().importances.features, confidence=0.95)["datasets"]["rows"]
    assert bars[0] == {
        "name": "feature_0",
        "value": 0.1,
        "low": pytest.approx(0.1 - 0.017247, abs=1e-6),
        "high": pytest.approx(0.1 + 0.017247, abs=1e-6),
    }
    dots = view_gains(ABLATION.views)["datasets"]
    assert [(row["low"], row["high"]) for row in dots["rows"]][1] == (pytest.approx(-0.007), pytest.approx(0.013))
    assert dots["level"] == [{"value": 0.0}]
    line = dependence(CURVE, prediction="predicted probability")["datasets"]
    assert [(row["at"], row["value"]) for row in line["rows"]] == [(1.0, 0.2), (9.0, 0.4)]
    assert line["null"] == [{"value": 0.3, "label": "missing"}]


def test_hours_stand_in_their_order_and_other_slices_as_they_come():
    by_hour = slices([("10", estimate(0.7)), ("6", estimate(0.6))], overall=0.65, confidence=0.95, x_title="ROC AUC")
    assert [row["name"] for row in by_hour["datasets"]["rows"]] == ["6", "10"]
    by_carrier = slices(
        [("UA", estimate(0.7)), ("AA", estimate(0.6))], overall=None, confidence=0.95, x_title="ROC AUC"
    )
    assert [row["name"] for row in by_carrier["datasets"]["rows"]] == ["UA", "AA"]
    assert chart_svg(by_carrier, name="x").startswith("<svg")


def test_a_column_with_one_slice_has_no_chart():
    parts = [part("origin", "EWR", 0.7), part("origin", "JFK", 0.8), part("month", "2013-06", 0.7)]
    measure = meaning_of("binary_classification").sliced[-1]
    (chart,) = slice_charts(parts, measure=measure, overall=0.75, confidence=0.95)
    assert chart.title == "ROC AUC by origin"
    assert "JFK" in chart.svg
