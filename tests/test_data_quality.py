"""A faulty day in the real graph: held in the run that lands it and in every later one, until released or healed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.core.days import DayRange
from ml_assets.core.ports import Source
from ml_assets.lifecycle import LANDING, RunFailed
from tests import faults
from tests.conftest import Life

pytestmark = pytest.mark.slow

SUNDAY, MONDAY, TUESDAY = date(2013, 1, 13), date(2013, 1, 14), date(2013, 1, 15)
MADE_OF_WEATHER = ["features.feat_origin_weather", "examples.arrival_delay"]


def celsius(source: Source) -> Source:
    return faults.celsius(source, [TUESDAY])


def n_rows(life: Life, tables: list[str], day: date) -> list[int]:
    found = life.home.tables()
    return [
        found[table].filter(pa.compute.equal(found[table]["partition_on"], pa.scalar(day))).num_rows for table in tables
    ]


def run(life: Life, *groups: str, first: date = TUESDAY, last: date = TUESDAY) -> None:
    life.lifecycle.run_groups(groups, DayRange(first=first, last=last))


@contextmanager
def refused(check: str, *, table: str = "weather", step: str = "data_quality") -> Iterator[None]:
    words = (
        rf"{step}: .*raw\.{table} of 2013-01-15 has a severe fault \({check}\): .*ml-assets release --table {table} "
    )
    with pytest.raises(RunFailed, match=words):
        yield


def test_a_faulty_day_is_held_now_and_later_until_somebody_releases_it(life: Life):
    with faults.delivering(celsius), refused("units"):
        life.land(TUESDAY)
    # What is made of flights alone is there; what is made of the weather is not.
    assert n_rows(life, MADE_OF_WEATHER, TUESDAY) == [0, 0]
    assert n_rows(life, ["features.feat_arrivals", "labels.label_arrival_delay"], TUESDAY) > [0, 0]
    assert not life.check("raw/weather", "units").passed
    assert "temp looks like degrees Celsius" in str(life.check("raw/weather", "units").description)
    assert [life.check("raw/weather", name).passed for name in ("volume", "freshness", "nulls", "late")] == [True] * 4
    # Nothing is forgotten by a run that lands nothing, whether it begins with the features or with the examples.
    with refused("units", step="dbt_models"):
        run(life, "features", "examples")
    with refused("units", step="arrival_delay__examples"):
        run(life, "examples")
    assert n_rows(life, MADE_OF_WEATHER, TUESDAY) == [0, 0]

    listed = CliRunner().invoke(app, ["faults", "--from", "2013-01-01"])
    assert "2013-01-15" in listed.output
    assert "1 days are held" in listed.output
    options = ["--table", "weather", "--day", "2013-01-15", "--by", "ana", "--reason", "the new unit is meant"]
    done = CliRunner().invoke(app, ["release", *options])
    assert done.exit_code == 0, done.output
    run(life, "features", "examples")

    assert min(n_rows(life, MADE_OF_WEATHER, TUESDAY)) > 0
    by = life.query("select released_by from monitoring.data_quality where severity = 'severe'")["released_by"]
    assert by.to_pylist() == ["ana"]
    assert "No day is held" in CliRunner().invoke(app, ["faults"]).output
    again = CliRunner().invoke(app, ["release", *options])
    assert (again.exit_code, "no fault to release" in again.output) == (1, True)


def test_of_three_days_the_sound_ones_go_through_and_landing_again_heals_the_other(life: Life):
    with faults.delivering(lambda source: faults.silent_sensor(source, [MONDAY])), pytest.raises(RunFailed) as failure:
        run(life, *LANDING, first=SUNDAY, last=TUESDAY)

    assert "0 rows of origin LGA, usually 24 on such a day" in str(failure.value)
    # Monday has what it had before; Tuesday is new, and does not wait for it.
    assert min(n_rows(life, MADE_OF_WEATHER, TUESDAY)) > 0
    of_monday = "select count(distinct origin) as n from {} where partition_on = $day"
    assert life.query(of_monday.format("raw.weather"), day=MONDAY)["n"].to_pylist() == [2]
    assert life.query(of_monday.format("features.feat_origin_weather"), day=MONDAY)["n"].to_pylist() == [3]
    assert life.facts("arrival_delay/examples")["n_held_days"] == 1

    run(life, *LANDING, first=SUNDAY, last=TUESDAY)
    assert life.query("select * from monitoring.data_quality where is_blocking").num_rows == 0
    assert life.facts("arrival_delay/examples")["n_held_days"] == 0


def test_a_delivery_that_the_contract_refuses_holds_the_day_in_a_later_run_too(life: Life):
    renamed = faults.FaultySource(
        otherwise=life.lifecycle._definitions.resources["source"],
        days=[TUESDAY],
        changes={"weather": lambda rows: rows.rename_columns({"temp": "temperature"})},
    )
    with faults.delivering(lambda _source: renamed), pytest.raises(RunFailed, match="column 'temp' is missing"):
        life.land(TUESDAY)
    with refused("schema", step="dbt_models"):
        run(life, "features", "examples")
    assert n_rows(life, MADE_OF_WEATHER, TUESDAY) == [0, 0]
    life.land(TUESDAY)
    assert min(n_rows(life, MADE_OF_WEATHER, TUESDAY)) > 0


def test_a_kill_between_the_rows_and_their_verdict_lets_nothing_slip(life: Life, monkeypatch: pytest.MonkeyPatch):
    def killed(*_given: object) -> None:
        raise RuntimeError("killed before the verdict")

    with monkeypatch.context() as patch, faults.delivering(celsius):
        patch.setattr("ml_assets.defs.data_quality.judge_days", killed)
        with pytest.raises(RunFailed, match="killed before the verdict"):
            run(life, "raw")
    assert life.query("select * from monitoring.data_quality where partition_on = $day", day=TUESDAY).num_rows == 0
    with refused("units", step="dbt_models"):
        run(life, "features")
