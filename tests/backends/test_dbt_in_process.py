"""dbt inside this process: what it remembers between processes, and when it looks again."""

import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import duckdb
import pytest

from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.core.days import DayRange

REPOSITORY = Path(__file__).parents[2]
DAYS = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 2))
PROJECT = {
    "dbt_project.yml": "name: small\nprofile: small\nmodels: {+materialized: table}\n",
    "profiles.yml": """
small:
  target: local
  outputs:
    local: {type: duckdb, path: "{{ var('warehouse_path') }}", schema: main, threads: 1}
""",
    "models/days.sql": "select date '{{ var(\"first_day\") }}' as first_day, 1 as edition",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, content in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def dbt_of(project: Path) -> DbtInProcess:
    """Return what another process would make: nothing is shared but the folder."""
    warehouse = str(project.parent / "warehouse.duckdb")
    variables = {"warehouse_path": warehouse, "first_day": "1900-01-01"}
    return DbtInProcess(project, target="local", variables=variables)


def built(project: Path) -> list[tuple[date, int]]:
    with duckdb.connect(str(project.parent / "warehouse.duckdb")) as connection:
        return connection.execute("from main.days").fetchall()


def no_parse(*_: object) -> None:
    raise AssertionError("the project was parsed again")


@pytest.mark.parametrize("call", ["prepare()", "debug()", "build([], days=DayRange(first=DAY, last=DAY))"])
def test_dbt_leaves_pythons_root_logger_as_it_was(project: Path, call: str):
    program = f"""
import logging
from datetime import date
from pathlib import Path
from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.core.days import DayRange
DAY = date(2013, 1, 1)
variables = {{"warehouse_path": "warehouse.duckdb", "first_day": "1900-01-01"}}
DbtInProcess(Path({str(project)!r}), target="local", variables=variables).{call}
assert "snowplow_tracker" in __import__("sys").modules, "nothing is tried"
assert logging.getLogger().handlers == [], logging.getLogger().handlers
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=project.parent)


def test_the_next_process_builds_from_the_kept_manifest_for_days_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    dbt_of(project).prepare()
    monkeypatch.setattr(DbtInProcess, "_parse", no_parse)

    build = dbt_of(project).build([], days=DAYS)

    assert build.failures == ()
    assert [event["data"]["node_info"]["node_name"] for event in build.events] == ["days"]
    assert built(project) == [(date(2013, 1, 1), 1)]


def test_a_changed_project_is_parsed_again_whatever_the_times_of_its_files(project: Path):
    dbt_of(project).build([], days=DAYS)
    models = project / "models"
    (models / "days.sql").write_text(PROJECT["models/days.sql"].replace("1 as edition", "2 as edition"))
    (models / "more.sql").write_text("select 1 as one")
    for path in (project, models, *models.iterdir()):  # all of it is older than what was made of its predecessor
        os.utime(path, (0, 0))

    dbt = dbt_of(project)
    dbt.build([], days=DAYS)

    assert built(project) == [(date(2013, 1, 1), 2)]
    assert {str(node["alias"]) for node in dbt.manifest_document["nodes"].values()} == {"days", "more"}
    (models / "more.sql").rename(models / "less.sql")
    os.utime(models, (0, 0))
    assert {str(node["alias"]) for node in dbt_of(project).manifest_document["nodes"].values()} == {"days", "less"}


def test_the_kept_lineage_of_columns_is_that_of_the_sql_that_was_built(project: Path):
    model = project / "models" / "days.sql"
    schema = {"main.first": {"a": "integer", "b": "integer"}}
    with duckdb.connect(str(project.parent / "warehouse.duckdb")) as connection:
        connection.execute("create table main.first as select 1 as a, 2 as b")

    def parents_of_c(dbt: DbtInProcess) -> str:
        return repr(dbt.column_lineage(dbt.build([], days=DAYS), schema)["main.days"])

    model.write_text("select a as c from main.first")
    first = dbt_of(project)
    assert "'a'" in parents_of_c(first)
    model.write_text("select b as c from main.first")
    os.utime(model, (0, 0))
    # The process that has its manifest goes on with it, and does not pass its lineage off as that of the new file.
    assert "'a'" in parents_of_c(first)
    assert "'b'" in parents_of_c(dbt_of(project))


def test_what_is_kept_is_accepted_in_another_place_and_by_files_of_another_time(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dbt_of(project).prepare()
    moved = tmp_path / "app" / "project"
    shutil.copytree(project, moved)
    for path in moved.rglob("*.sql"):
        os.utime(path, (2**32, 2**32))
    monkeypatch.setattr(DbtInProcess, "_parse", no_parse)

    dbt_of(moved).prepare()

    assert dbt_of(moved).build([], days=DAYS).failures == ()


def test_to_look_whether_anything_changed_costs_less_than_10_ms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DbtInProcess, "_parse", lambda _: None)
    dbt = DbtInProcess(REPOSITORY / "dbt_project", target="local", variables={}, target_folder=tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    looks: list[float] = []
    for _ in range(5):
        started = time.process_time()
        dbt.prepare()
        looks.append(time.process_time() - started)
    assert min(looks) < 0.010


def test_a_manifest_of_another_dbt_is_not_read(project: Path):
    dbt_of(project).prepare()
    kept = next((project / "target").glob("*.msgpack"))
    kept.rename(kept.with_name("manifest-1.0.0-local.msgpack"))

    assert dbt_of(project).build([], days=DAYS).failures == ()
    assert kept.exists()
