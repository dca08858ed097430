"""What the packaged flights of 2013 promise: columns, units, and the ranges outside which a value is a mistake.

The ranges are judgements: wider than anything genuine, narrow enough that a change of unit falls outside. On the
whole of 2013 they refuse one row: Newark reports a wind of 1048 mph on 2013-02-12 at 03:00, four times the strongest
gust ever measured on Earth.
"""

from collections.abc import Mapping

import pyarrow as pa

from ml_assets.core.contracts import PARTITION, Column, Contract


def _text(name: str, description: str, *, nullable: bool = False, is_outcome: bool = False) -> Column:
    return Column(name=name, type=pa.string(), description=description, nullable=nullable, is_outcome=is_outcome)


def _integer(
    name: str,
    within: tuple[int, int],
    description: str,
    *,
    nullable: bool = False,
    is_outcome: bool = False,
    unit: str = "",
) -> Column:
    least, most = within
    return Column(
        name=name,
        type=pa.int64(),
        description=description,
        nullable=nullable or is_outcome,
        is_outcome=is_outcome,
        minimum=least,
        maximum=most,
        unit=unit,
    )


def _measured(
    name: str, within: tuple[float, float], description: str, *, unit: str, is_sparse: bool = False
) -> Column:
    least, most = within
    return Column(
        name=name,
        type=pa.float64(),
        description=description,
        nullable=True,
        is_sparse=is_sparse,
        minimum=least,
        maximum=most,
        unit=unit,
    )


_LOCAL_DAY = Column(name=PARTITION, type=pa.date32(), description="New York local day of time_hour.")
_CARRIER = _text("carrier", "Two-letter code of the airline.")
_FLIGHT = _integer("flight", (1, 9999), "Flight number.")
_ORIGIN = _text("origin", "FAA code of the New York airport: EWR, JFK or LGA.")
_DEST = _text("dest", "FAA code of the destination airport.")
_SCHEDULED_DEPARTURE = _integer("sched_dep_time", (0, 2400), "Scheduled departure, HHMM in local time.")
_SCHEDULED_HOUR = Column(
    name="time_hour", type=pa.timestamp("us", tz="UTC"), description="Hour of the scheduled departure, UTC."
)

SCHEDULES = Contract(
    table="schedules",
    description="One row per scheduled flight out of New York: what is known in advance, no outcome and no aircraft.",
    columns=(
        _LOCAL_DAY,
        _integer("year", (2000, 2200), "Local year of the scheduled departure."),
        _integer("month", (1, 12), "Local month of the scheduled departure."),
        _integer("day", (1, 31), "Local day of the month of the scheduled departure."),
        _SCHEDULED_DEPARTURE,
        _integer("sched_arr_time", (0, 2400), "Scheduled arrival, HHMM in the destination's local time."),
        _CARRIER,
        _FLIGHT,
        _ORIGIN,
        _DEST,
        _integer("distance", (10, 12_000), "Distance between the airports in miles.", unit="miles"),
        _integer("hour", (0, 24), "Hour of sched_dep_time."),
        _integer("minute", (0, 59), "Minute of sched_dep_time."),
        _SCHEDULED_HOUR,
    ),
    key=("carrier", "flight", "time_hour"),
    is_partitioned=True,
    event_at="time_hour",
    groups=("origin", "carrier"),
)

FLIGHTS = Contract(
    table="flights",
    description="One row per scheduled flight out of New York: its outcome; null outcomes mean cancelled or diverted.",
    columns=(
        _LOCAL_DAY,
        _CARRIER,
        _FLIGHT,
        _ORIGIN,
        _DEST,
        _SCHEDULED_HOUR,
        _SCHEDULED_DEPARTURE,
        # Null only for flights that were cancelled: an outcome, which must not reach schedules.
        _text("tailnum", "Registration of the aircraft that flew; null if none did.", nullable=True, is_outcome=True),
        _integer("dep_time", (1, 2400), "Departure, HHMM in local time; null if cancelled.", is_outcome=True),
        _integer(
            "dep_delay", (-180, 1800), "Departure delay in minutes; null if cancelled.", is_outcome=True, unit="minutes"
        ),
        _integer("arr_time", (1, 2400), "Arrival, HHMM in the destination's local time.", is_outcome=True),
        _integer(
            "arr_delay",
            (-180, 1800),
            "Arrival delay in minutes; null if it did not arrive.",
            is_outcome=True,
            unit="minutes",
        ),
        _integer(
            "air_time", (10, 1200), "Minutes in the air; null if it did not arrive.", is_outcome=True, unit="minutes"
        ),
    ),
    key=("carrier", "flight", "time_hour"),
    is_partitioned=True,
    event_at="time_hour",
    groups=("origin", "carrier"),
)

WEATHER = Contract(
    table="weather",
    description="One row per New York airport and hour: the weather measured in the hour that begins at time_hour.",
    columns=(
        _LOCAL_DAY,
        _ORIGIN,
        Column(name="time_hour", type=pa.timestamp("us", tz="UTC"), description="Start of the measured hour, UTC."),
        _measured("temp", (-60, 130), "Temperature in degrees Fahrenheit.", unit="fahrenheit"),
        _measured("dewp", (-80, 100), "Dew point in degrees Fahrenheit.", unit="fahrenheit"),
        _measured("humid", (0, 100), "Relative humidity in percent.", unit="percent"),
        _measured("wind_dir", (0, 360), "Direction the wind comes from, in degrees.", unit="degrees"),
        _measured("wind_speed", (0, 150), "Wind speed in miles per hour.", unit="mph"),
        _measured(
            "wind_gust", (0, 200), "Gust speed in miles per hour; null in most hours.", unit="mph", is_sparse=True
        ),
        _measured("precip", (0, 6), "Precipitation of the hour in inches.", unit="inches"),
        _measured("pressure", (850, 1100), "Sea-level pressure in millibars.", unit="mbar"),
        _measured("visib", (0, 50), "Visibility in miles.", unit="miles"),
    ),
    key=("origin", "time_hour"),
    is_partitioned=True,
    event_at="time_hour",
    groups=("origin",),
)

PLANES = Contract(
    table="planes",
    description="One row per aircraft registration.",
    columns=(
        _text("tailnum", "Registration of the aircraft."),
        _integer("year", (1900, 2200), "Year of manufacture.", nullable=True),
        _text("type", "Kind of aircraft."),
        _text("manufacturer", "Manufacturer."),
        _text("model", "Model."),
        _integer("engines", (0, 12), "Number of engines."),
        _integer("seats", (1, 1000), "Number of seats."),
        _integer("speed", (10, 3000), "Cruising speed in miles per hour; null for most.", nullable=True),
        _text("engine", "Kind of engine."),
    ),
    key=("tailnum",),
    is_partitioned=False,
)

AIRPORTS = Contract(
    table="airports",
    description="One row per airport of the United States.",
    columns=(
        _text("faa", "FAA code of the airport."),
        _text("name", "Name of the airport."),
        Column(name="lat", type=pa.float64(), description="Latitude in degrees north.", minimum=-90, maximum=90),
        Column(name="lon", type=pa.float64(), description="Longitude in degrees east.", minimum=-180, maximum=180),
        _integer("alt", (-1500, 20_000), "Altitude in feet."),
        _integer("tz", (-12, 14), "Offset from UTC in hours, without daylight saving time."),
        _text("dst", "Daylight saving rule: A as in the United States, N none, U unknown."),
        _text("tzone", "IANA time zone.", nullable=True),
    ),
    key=("faa",),
    is_partitioned=False,
)

AIRLINES = Contract(
    table="airlines",
    description="One row per airline.",
    columns=(_text("carrier", "Two-letter code of the airline."), _text("name", "Full name of the airline.")),
    key=("carrier",),
    is_partitioned=False,
)

CONTRACTS: Mapping[str, Contract] = {c.table: c for c in (SCHEDULES, FLIGHTS, WEATHER, PLANES, AIRPORTS, AIRLINES)}
