"""The page of one day: what it says first, and what it says where there is nothing yet."""

from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest

from ml_assets.core.errors import BadInput, DataMissing
from ml_assets.core.monitored import ALARMS, DATA_QUALITY, SKEW, SLICES
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance
from ml_assets.core.reports.monitored_rows import Monitored
from tests.core.reports.world import LAST_DAY, Page, World

EMPTY: dict[str, object] = dict.fromkeys(("alarms", "faults", "skew", "slices", "estimates", "decisions"), ()) | {
    "shadows": pa.table({})
}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_what_is_wrong_since_when_and_what_to_do_come_first(world: World):
    page = Page(world.day_page())
    words = page.words
    assert "Needs attention now" in words
    assert "Data of raw.weather is blocked, since Fri 5 Jul" in words
    assert "Features moved away from training, since Thu 4 Jul" in words
    assert "What to do" in words
    assert "A training as of 2013-07-06 was asked for" in words
    # Before anything else, the title of the tab included.
    assert words.index("Needs attention now") < words.index("Decisions predicted") < words.index("Quality over")
    assert words.startswith("arrival_delay on 2013-07-05: Needs attention now")


def test_an_alarm_of_an_earlier_day_is_not_on_the_page(world: World):
    # The quality alarm stood from 20 to 23 June.
    assert "Predictions are worse" not in Page(world.day_page()).words
    assert (
        "Predictions are worse than they should be, since Thu 20 Jun"
        in Page(world.day_page(day=date(2013, 6, 22))).words
    )


def test_a_day_whose_data_is_still_held_up_is_named_until_it_is_released(world: World):
    (fault,) = world.monitored.faults
    held = replace(fault, partition_on=date(2013, 7, 2))
    words = Page(world.day_page(faults=[held])).words
    assert "Data of raw.weather is blocked, since Tue 2 Jul" in words
    released = Page(world.day_page(faults=[replace(held, released_by="olga")])).words
    assert "is blocked" not in released
    assert "is blocked" not in Page(world.day_page(faults=[replace(held, partition_on=date(2013, 6, 1))])).words


def test_a_day_knows_nothing_of_later_days(world: World):
    day = date(2013, 6, 25)
    until = world.monitored.until(day)
    assert world.day_page(day=day) == world.day_page(day=day, **vars(until))
    assert "Thu 4 Jul" not in world.day_page(day=day)


def test_a_calm_day_is_well_and_one_that_no_alarm_was_computed_for_is_not_judged(world: World):
    calm = Page(world.day_page(alarms=(), faults=())).words
    assert "All is well" in calm
    assert "No alarm stands on this day." in calm
    assert "What to do" not in calm
    unjudged = Page(world.day_page(alarms=(), faults=(), absent=frozenset({ALARMS}))).words
    assert "Not judged yet" in unjudged
    assert "All is well" not in unjudged


def test_every_section_that_has_nothing_yet_says_so(world: World):
    absent = frozenset({ALARMS, SLICES, SKEW, DATA_QUALITY})
    words = Page(world.day_page(**EMPTY, absent=absent, performance=PERFORMANCE_SCHEMA.empty_table())).words
    for sentence in (
        "No outcome is known yet, so nothing can be said about quality.",
        "Nothing is estimated before outcomes are known.",
        "No slice has been measured yet.",
        "Nothing has been compared yet.",
        "The raw tables have not been checked yet.",
        "Nothing has been decided about a training on this day yet.",
        "No day has been compared with its outcomes yet.",
    ):
        assert sentence in words


def test_what_was_looked_at_and_found_well_is_told_from_what_was_not_looked_at(world: World):
    same = [replace(row, n_different=0) for row in world.monitored.skew]
    words = Page(world.day_page(**(EMPTY | {"skew": same}))).words
    assert "50 rows were compared in 1 features; every value is the same." in words
    assert "The raw tables of this day show no fault." in words
    assert "No row of this day was compared." in Page(world.day_page(**EMPTY)).words


def test_what_monitoring_says_of_the_quality_is_said_and_a_shared_reservation_once(world: World):
    blind = "Nothing is estimated of the world changing"
    estimates = [
        replace(row, explanation=f"{words}. {blind}")
        for row, words in zip(
            world.monitored.estimates[-1:] * 2, ("ROC AUC estimated at 0.7", "loss at 0.5"), strict=True
        )
    ]
    words = Page(world.day_page(estimates=[*world.monitored.estimates, *estimates])).words
    assert f"ROC AUC estimated at 0.7. Loss at 0.5. {blind}." in words
    assert words.count(blind) == 1
    # Of 4 July, not of this day.
    assert (
        "of yesterday"
        not in Page(
            world.day_page(estimates=[replace(world.monitored.estimates[-2], explanation="of yesterday")])
        ).words
    )


def test_estimates_and_other_models_stand_beside_what_came_true(world: World):
    words = Page(world.day_page()).words
    for name in ("realised", "estimated before outcomes", "the champion before", "logistic baseline"):
        assert name in words


def test_drifted_features_come_before_the_others_and_after_the_prediction(world: World):
    page = Page(world.day_page())
    section = page.words[page.words.index("Drift of the day") : page.words.index("Features served")]
    assert section.index("prediction") < section.index("carrier_of_flight severe") < section.index("wind_speed_mph")
    assert "42 % moved \N{MIDDLE DOT} p 0.0002" in section


def test_the_slice_that_was_predicted_worst_is_named_and_one_within_chance_is_not(world: World):
    (bad,) = world.monitored.slices
    # Of 400 predicted at 30 %, two standard errors are 4.6 % points.
    fine = replace(bad, value="B6", positive_share=0.33)
    words = Page(world.day_page(slices=[bad, fine])).words
    assert "carrier AA" in words
    assert "came true more often than predicted" in words
    assert "carrier B6" not in words
    none = Page(world.day_page(slices=[fine])).words
    assert "1 slices of the last four weeks were looked at; none was predicted worse than chance explains." in none


def test_a_decision_shows_what_it_rests_on(world: World):
    words = Page(world.day_page()).words
    assert "Train again as of 2013-07-06: drift: carrier." in words
    assert "Model age days 5" in words


def test_only_the_reasons_for_having_no_label_that_occur_are_shown(world: World):
    text = Page(world.day_page()).text
    assert "Cancelled" in text
    assert "Diverted" not in text  # 6 of each day's 300 flights were cancelled, none was diverted
    whole = world.monitored.performance
    for name in ("n_cancelled", "n_unlabelled"):
        position = whole.column_names.index(name)
        whole = whole.set_column(position, whole.schema.field(name), pa.array([0] * whole.num_rows, pa.int64()))
    text = Page(world.day_page(performance=whole)).text
    assert "Cancelled" not in text
    assert "With outcome" in text


def test_a_day_of_one_class_has_a_gap_instead_of_a_number(world: World):
    rows = pa.table(
        {"prediction": [0.2, 0.3], "label": [False, False], "no_label_reason": pa.array([None, None], pa.string())}
    )
    only = measure_performance(rows, use_case="arrival_delay", day=LAST_DAY, model_version=world.version_on(LAST_DAY))
    assert "all outcomes are alike" in Page(world.day_page(performance=only)).text


def test_a_day_whose_drift_is_not_measured_has_no_report(world: World):
    with pytest.raises(DataMissing, match="materialize arrival_delay/drift first"):
        world.day_page(day=date(2013, 1, 1))


@pytest.mark.parametrize("address", ["javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "JAVASCRIPT:x"])
def test_a_link_that_runs_a_script_is_refused(world: World, address: str):
    with pytest.raises(BadInput, match="expected an address"):
        world.day_page(links={"open": address})


def test_rows_written_before_a_release_that_added_columns_still_have_a_page(world: World):
    new = ("view", "mean", "bin_counts", "p_value", "moved_share", "severity")
    old = world.monitored.drift_of_days.drop_columns(list(new))
    page = Page(world.day_page(drift_of_days=old, drift=old))
    assert "PSI 0.03" in page.words
    assert "histogram" not in page.of("class")


def test_the_same_input_gives_the_same_bytes(world: World):
    assert World().day_page() == world.day_page()


def test_a_table_that_is_not_as_agreed_is_said_to_be_so(world: World):
    broken = world.monitored.drift_of_days.set_column(
        world.monitored.drift_of_days.column_names.index("n_rows"),
        "n_rows",
        pa.array(["many"] * world.monitored.drift_of_days.num_rows),
    )
    with pytest.raises(BadInput, match="is no DriftRow"):
        world.day_page(drift_of_days=broken)


def test_monitored_rows_of_later_days_do_not_reach_back(world: World):
    until = world.monitored.until(date(2013, 6, 20))
    assert isinstance(until, Monitored)
    assert {alarm.partition_on for alarm in until.alarms} == {date(2013, 6, 20)}
    assert until.performance.num_rows == 6
