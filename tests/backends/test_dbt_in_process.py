"""dbt inside this process: what it remembers between processes, and when it looks again."""

import os
from datetime import date
from pathlib import Path

import duckdb
import pytest

from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.core.days import DayRange

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


def test_the_next_process_builds_from_the_kept_manifest_for_days_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    dbt_of(project).prepare()
    monkeypatch.setattr(DbtInProcess, "_parse", no_parse)

    build = dbt_of(project).build([], days=DAYS)

    assert build.failures == ()
    assert [event["data"]["node_info"]["node_name"] for event in build.events] == ["days"]
    assert built(project) == [(date(2013, 1, 1), 1)]


def test_a_changed_model_is_parsed_again(project: Path):
    dbt_of(project).build([], days=DAYS)
    model = project / "models" / "days.sql"
    model.write_text(model.read_text().replace("1 as edition", "2 as edition"))
    kept = next((project / "target").glob("*.msgpack"))
    later = kept.stat().st_mtime + 1  # a file system may keep times no finer than this
    os.utime(model, (later, later))

    dbt_of(project).build([], days=DAYS)

    assert built(project) == [(date(2013, 1, 1), 2)]


def test_a_manifest_of_another_dbt_is_not_read(project: Path):
    dbt_of(project).prepare()
    kept = next((project / "target").glob("*.msgpack"))
    kept.rename(kept.with_name("manifest-1.0.0-local.msgpack"))

    assert dbt_of(project).build([], days=DAYS).failures == ()
    assert kept.exists()
