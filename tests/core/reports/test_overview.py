"""The overview of the weeks: everything on one time axis, of a bounded size."""

import base64
import re
import time
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.errors import DataMissing
from ml_assets.core.monitored import ALARMS
from ml_assets.core.reports.index import index_page
from ml_assets.core.reports.overview import overview_page, overview_pictures
from tests.core.reports.world import DAYS, FIRST_DAY, LAST_DAY, Page, World, entry


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def half_a_year(n_features: int = 67, n_days: int = 182) -> pa.Table:
    """Rows of monitoring.drift in which no two neighbours have one colour: the largest heat map there can be."""
    days = [LAST_DAY - timedelta(days=i) for i in range(n_days)]
    moved = np.resize([0.01, 0.07, 0.15, 0.25, 0.4, 0.7], n_features * n_days)
    return pa.table(
        {
            "partition_on": np.repeat(np.array(days, "datetime64[D]"), n_features),
            "model_version": ["v"] * len(moved),
            "feature": [f"origin_carrier_departures_mean_delay_minutes_{i}h" for i in range(n_features)] * n_days,
            "view": [f"view_{i % 9}" for i in range(n_features)] * n_days,
            "kind": ["numeric"] * len(moved),
            "is_drifted": [False] * len(moved),
            "moved_share": moved,
        }
    )


def test_drift_quality_models_alarms_and_decisions_share_the_days(world: World):
    page = Page(world.overview_page())
    for words in ("In charge", "Alarms", "Trainings asked for", "Data faults", "ROC AUC", "Log loss (nats)"):
        assert words in page.text
    for name in ("prediction", "wind_speed_mph", "carrier_of_flight"):
        assert f"{name}: at most" in page.text
    assert "arrival_delay \N{MIDDLE DOT} 15 June 2013 to 5 July 2013" in page.words


def test_an_incident_is_one_row_from_its_first_day_to_its_last_with_its_explanation(world: World):
    newest, oldest = world.overview().incidents
    assert (newest.number, newest.first, newest.last, newest.is_open) == (2, date(2013, 7, 4), LAST_DAY, True)
    assert (oldest.first, oldest.last, oldest.is_open) == (date(2013, 6, 20), date(2013, 6, 23), False)
    words = Page(world.overview_page()).words
    assert "Thu 4 Jul still there 67 % of the day's rows" in words
    assert "Thu 20 Jun Sun 23 Jun" in words


def test_a_champion_change_is_a_rule_through_every_lane_and_a_row_that_names_the_version(world: World):
    page = Page(world.overview_page())
    # 1 July is the 17th of 21 days, 16 / 21 from the left: in the lanes of alarms, trainings, faults and of quality.
    assert page.of("x1").count("76.19%") == 6
    assert "2013-07-01-3fa2c1d0beef" in page.text
    assert "M16 0v12" in page.of("d")


def test_cells_are_as_dark_as_what_moved_and_alarming_days_are_outlined(world: World):
    row = next(row for row in world.overview().heat if row.feature == "carrier_of_flight")
    assert row.moved[-2:].tolist() == [0.42, 0.42]
    alarms = [replace(alarm, subject="carrier_of_flight") for alarm in world.monitored.alarms]
    page = Page(world.overview_page(alarms=alarms))
    # 42 % moved is of the fifth colour, on the last two of 21 days.
    assert "M19 0h2v12h-2z" in page.of("d")
    assert page.of("class").count("heat-4") == 2  # one strip, and the legend
    assert "M19 1h2v10h-2z" in page.of("d")


def test_a_day_without_a_measurement_has_no_cell(world: World):
    without = world.monitored.drift.filter(
        np.array([day != date(2013, 6, 20) for day in world.monitored.drift["partition_on"].to_pylist()])
    )
    row = world.overview(drift=without).heat[0]
    assert np.flatnonzero(np.isnan(row.moved)).tolist() == [(date(2013, 6, 20) - FIRST_DAY).days]


def test_half_a_year_of_67_features_fits_a_page_and_is_drawn_at_once(world: World):
    overview = world.overview(drift=half_a_year())
    assert overview.axis.n_days == 182
    begun = time.process_time()
    page = overview_page(overview, links={})
    cpu = time.process_time() - begun
    assert len(page.encode()) < 1_500_000
    assert Page(page).of("class").count("heat-5") > 67
    assert cpu < 3  # 0.15 s on a quiet machine
    assert all(len(text) < 300_000 for text in overview_pictures(overview).values())


def test_more_than_half_a_year_is_cut_at_its_beginning(world: World):
    overview = world.overview(drift=half_a_year(n_features=1, n_days=300))
    assert (overview.axis.first, overview.axis.last) == (LAST_DAY - timedelta(days=181), LAST_DAY)


def test_twenty_six_champions_leave_room_for_the_names_that_are_shown(world: World):
    world = World()
    world.ledger = [entry(i + 1, LAST_DAY - timedelta(weeks=26 - i)) for i in range(26)]
    overview = world.overview(drift=half_a_year(n_features=1))
    places = [
        float(x.rstrip("%"))
        for x in re.findall(r'<text x="([\d.]+)%" y="15" dx="4" class="date">', overview_page(overview, links={}))
    ]
    assert len(places) >= 4
    assert min(b - a for a, b in pairwise(places)) >= 20  # 70 pixels of a phone's 358


def test_nothing_yet_is_said_in_words(world: World):
    empty = {"alarms": (), "faults": (), "decisions": (), "estimates": ()}
    words = Page(world.overview_page(**empty, absent=frozenset({ALARMS}))).words
    assert "No alarms have been computed yet." in words
    assert "Nothing has been decided about a training yet." in words
    assert "No alarm stood on any of these days." in Page(world.overview_page(**empty)).words
    old = world.monitored.drift.drop_columns(["moved_share"])
    assert "How much moved has not been measured" in Page(world.overview_page(drift=old)).words
    with pytest.raises(DataMissing, match="materialize arrival_delay/drift first"):
        world.overview(drift=world.monitored.drift.slice(0, 0))


def test_the_main_charts_are_pictures_for_the_ui(world: World):
    alarms = [replace(alarm, subject="carrier_of_flight") for alarm in world.monitored.alarms]
    pictures = overview_pictures(world.overview(alarms=alarms))
    assert list(pictures) == ["drift", "quality", "alarms"]
    for text in pictures.values():
        found = re.fullmatch(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
        assert found
        drawing = ElementTree.fromstring(base64.b64decode(found[1]))
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        # A picture has no style sheet but its own: no variable may be left in it.
        assert b"var(--" not in base64.b64decode(found[1])
    assert "alarms" not in overview_pictures(world.overview(alarms=()))


def test_the_same_input_gives_the_same_bytes(world: World):
    assert World().overview_page() == world.overview_page()
    assert overview_pictures(World().overview()) == overview_pictures(world.overview())


def test_the_index_says_how_each_use_case_is_and_links_its_newest_page():
    newest = {"cancellation": date(2013, 7, 3), "arrival_delay": LAST_DAY}
    page = Page(index_page(newest, {"arrival_delay": ["severe", "warning"]}, {"arrival_delay": date(2013, 7, 1)}))
    assert page.of("href") == [
        *("arrival_delay/overview.html", "arrival_delay/2013-07-05.html", "arrival_delay/overview.html"),
        "arrival_delay/ml-test-score-2013-07-01.html",
        *("cancellation/overview.html", "cancellation/2013-07-03.html", "cancellation/overview.html"),
    ]
    assert "arrival_delay 2 alarms, 1 severe" in page.words
    assert "cancellation All is well" in page.words
    assert "Not judged yet" in Page(index_page(newest, None, {})).words
    assert "No report has been written yet." in Page(index_page({}, None, {})).words


def test_every_day_of_the_world_has_a_cell(world: World):
    assert {len(row.moved) for row in world.overview().heat} == {len(DAYS)}
