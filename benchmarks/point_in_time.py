"""Measure the point-in-time join beside its peers: ``python -m benchmarks.point_in_time --folder /tmp/bench``.

Three latest views with age limits are joined to the flights of 1, 10 and 30 replayed years (0.34, 3.4 and 10 million
decisions), Parquet to Parquet. The *limit* only reads and writes the joined table with DuckDB. Every contender runs
in a process of its own; CPU seconds (user + system, both threads) are those of the work, without imports, the peak
memory is that of the whole process. Each result must equal ours, row for row, or the benchmark stops.
Exits with 1 where ours costs more than twice the limit, or needs more than 1.5 GB.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import cast

import duckdb

from benchmarks.scale_up import REPLAY_DAYS, replay_years
from ml_assets.core.feature_views import Feature, LatestView
from ml_assets.core.point_in_time import Pruning, join_query, parts
from ml_assets.core.ports import DayRange

KEPT = ("decision_id", "partition_on", "carrier", "flight", "origin", "dest", "distance", "decided_at")
SECONDS_ALLOWED = 240
MOST_OF_LIMIT, MOST_MB = 2.0, 1536
DAYS_AT_ONCE = 3 * REPLAY_DAYS


def _view(name: str, entity: tuple[str, ...], hours: int, *features: str) -> LatestView:
    return LatestView(
        name=name,
        table=f"features.{name}",
        entity=entity,
        known_at="known_at",
        max_age=timedelta(hours=hours),
        features=tuple(Feature(name=feature, kind="numeric", view=name) for feature in features),
    )


VIEWS = (
    _view("origin_weather", ("origin",), 3, "temp", "dewp", "humid", "wind_speed", "precip", "visib", "pressure"),
    _view("origin_delays", ("origin",), 24, "n_departures", "mean_departure_delay_minutes", "late_share"),
    _view("carrier_delays", ("carrier", "origin"), 24,
          "n_carrier_departures", "mean_carrier_delay_minutes", "carrier_late_share"),
)  # fmt: skip
FEATURES = tuple(feature.name for view in VIEWS for feature in view.features)


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    # A spill without bound has filled a shared disk before.
    connection.execute(f"SET temp_directory = '{folder / 'spill'}'; SET max_temp_directory_size = '8GB'")
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2; SET preserve_insertion_order = false")
    connection.execute("CREATE SCHEMA features")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "year_00.parquet").exists():
            connection.execute(f"CREATE VIEW features.{path.name} AS FROM '{path}/*.parquet'")
    return connection


def ours_whole(folder: Path, out: Path) -> Callable[[], None]:
    """Our join as one statement."""
    sql = join_query("FROM features.decisions", VIEWS, dialect="duckdb", kept=KEPT)
    connection = _connect(folder)
    return lambda: _ignore(connection.execute(f"COPY ({sql}) TO '{out}/all.parquet'"))


def ours(folder: Path, out: Path) -> Callable[[], None]:
    """Our join in parts of at most three years: bounded memory."""
    taken = "FROM features.decisions WHERE partition_on BETWEEN $first_day AND $last_day"
    sql = join_query(taken, VIEWS, dialect="duckdb", kept=KEPT, pruning=Pruning(lead_time=timedelta(hours=2)))
    connection = _connect(folder)

    def work() -> None:
        found = connection.execute("SELECT min(partition_on), max(partition_on) FROM features.decisions").fetchone()
        first, last = found or (date.min, date.max)
        for part in parts(DayRange(first=first, last=last), at_most_days=DAYS_AT_ONCE):
            bounds = {"first_day": part.first, "last_day": part.last}
            connection.execute(f"COPY ({sql}) TO '{out}/{part.first}.parquet'", bounds)

    return work


def limit(folder: Path, out: Path) -> Callable[[], None]:
    """Read and write the joined table: nobody can be faster."""
    connection = _connect(folder)
    return lambda: _ignore(connection.execute(f"COPY (FROM '{out.parent}/ours/*.parquet') TO '{out}/all.parquet'"))


def duckdb_asof(folder: Path, out: Path) -> Callable[[], None]:
    """DuckDB's ASOF JOIN, once for each view."""
    joins, columns = "", ""
    for view in VIEWS:
        same = " AND ".join(f"d.{column} = {view.name}.{column}" for column in view.entity)
        joins += f" ASOF LEFT JOIN {view.table} {view.name} ON {same} AND d.decided_at >= {view.name}.known_at"
        hours = view.max_age // timedelta(hours=1)
        fresh = f"epoch_us(d.decided_at) - epoch_us({view.name}.known_at) <= {hours} * 3600000000"
        columns += "".join(f", CASE WHEN {fresh} THEN {view.name}.{f.name} END AS {f.name}" for f in view.features)
    kept = ", ".join(f"d.{column}" for column in KEPT)
    connection = _connect(folder)
    sql = f"COPY (SELECT {kept}{columns} FROM features.decisions d{joins}) TO '{out}/all.parquet'"
    return lambda: _ignore(connection.execute(sql))


def polars_asof(folder: Path, out: Path) -> Callable[[], None]:
    """The ``join_asof`` of polars."""
    import polars as pl

    def work() -> None:
        joined = pl.scan_parquet(f"{folder}/decisions/*.parquet").sort("decided_at")
        for view in VIEWS:
            rows = pl.scan_parquet(f"{folder}/{view.name}/*.parquet").drop("partition_on").sort("known_at")
            joined = joined.join_asof(
                rows, left_on="decided_at", right_on="known_at", by=list(view.entity), tolerance=view.max_age
            ).drop("known_at", strict=False)
        joined.select(*KEPT, *FEATURES).collect().write_parquet(out / "all.parquet", compression="snappy")

    return work


def pandas_asof(folder: Path, out: Path) -> Callable[[], None]:
    """The ``merge_asof`` of pandas."""
    import pandas as pd

    def work() -> None:
        joined = pd.read_parquet(folder / "decisions").sort_values("decided_at")
        for view in VIEWS:
            rows = pd.read_parquet(folder / view.name).drop(columns="partition_on").sort_values("known_at")
            joined = pd.merge_asof(
                joined,
                rows,
                left_on="decided_at",
                right_on="known_at",
                by=list(view.entity),
                tolerance=cast("pd.Timedelta", pd.Timedelta(view.max_age)),
            ).drop(columns="known_at")
        joined[[*KEPT, *FEATURES]].to_parquet(out / "all.parquet", index=False)

    return work


CONTENDERS = {work.__name__: work for work in (ours, ours_whole, limit, polars_asof, pandas_asof, duckdb_asof)}


def _ignore(_: object) -> None:
    """Drop a result: contenders return nothing."""


def cpu_seconds() -> float:
    """Return the CPU seconds this process has used, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _contend(name: str, folder: Path, out: Path) -> None:
    work = CONTENDERS[name](folder, out)
    before = cpu_seconds()
    work()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": cpu_seconds() - before, "rss_mb": megabytes}))


def _measure(command: list[str], out: Path) -> dict[str, float] | None:
    """Run one contender in its own process; return its figures, or None where it took too long."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def fingerprint(out: Path) -> tuple[int, ...]:
    """Return the row count and, for each feature, a hash over every decision and its value, in any order."""
    hashes = ", ".join(f"sum(hash(decision_id, CAST({name} AS DOUBLE)))" for name in FEATURES)
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT count(*), {hashes} FROM '{out}/*.parquet'").fetchone()
    return tuple(int(value) for value in row or ())


def _compare(years: int, folder: Path, repeats: int, feast_python: str | None) -> bool:
    """Print one size; return whether ours holds its limits."""
    inputs = folder / f"years_{years}"
    replay_years(inputs, years)
    commands = {
        name: [sys.executable, "-m", "benchmarks.point_in_time", "--contender", name, "--folder", str(inputs)]
        for name in CONTENDERS
    }
    if feast_python:
        script = Path(__file__).with_name("point_in_time_feast.py")
        commands["feast"] = [feast_python, str(script), "--folder", str(inputs)]
    figures: dict[str, list[dict[str, float]]] = {}
    for repeat in range(repeats):
        for name, command in commands.items():
            if repeat and (name not in figures or name == "feast"):
                continue
            out = folder / "out" / name
            found = _measure([*command, "--out", str(out)], out)
            if found is None:
                print(f"{name}: stopped after {SECONDS_ALLOWED} s")
                continue
            if repeat == 0 and fingerprint(out) != fingerprint(folder / "out" / "ours"):
                raise AssertionError(f"the table that {name} made differs from ours")
            figures.setdefault(name, []).append(found)
    n_rows = fingerprint(folder / "out" / "ours")[0]
    print(f"\n{n_rows:,} decisions, median of {repeats}      CPU s   of limit   peak MB")
    least = statistics.median(found["cpu_s"] for found in figures["limit"])
    for name, found in figures.items():
        seconds = statistics.median(one["cpu_s"] for one in found)
        print(f"{name:36} {seconds:9.2f} {seconds / least:10.2f} {max(one['rss_mb'] for one in found):9.0f}")
    shutil.rmtree(folder / "out")
    cost = statistics.median(one["cpu_s"] for one in figures["ours"]) / least
    is_held = cost <= MOST_OF_LIMIT and max(one["rss_mb"] for one in figures["ours"]) <= MOST_MB
    print(f"ours: {cost:.2f} of the limit (at most {MOST_OF_LIMIT:g}): {'held' if is_held else 'MISSED'}")
    return is_held


def main() -> int:
    """Compare all contenders at each size, or be one of them."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, required=True, help="where inputs are kept and results are written")
    arguments.add_argument("--years", type=int, nargs="+", default=[1, 10, 30], help="sizes in replayed years")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--feast-python", help="the Python of an environment that has feast[duckdb]")
    arguments.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    arguments.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.contender:
        _contend(given.contender, given.folder, given.out)
        return 0
    held = [_compare(years, given.folder, given.repeats, given.feast_python) for years in given.years]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
