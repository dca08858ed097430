"""Feature views: what a table of features says of itself, read from the yml beside the model that makes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast, get_args

import yaml

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.names import identifier, table_name

FeatureKind = Literal["numeric", "categorical"]
# libyaml's parser where PyYAML was built with it: the same documents, ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

AggregateFunction = Literal["count", "sum", "mean", "share"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of examples that a model reads; ``unit`` is None for text, booleans and numbers without one."""

    name: str
    kind: FeatureKind
    view: str
    description: str = ""
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class LatestView:
    """The newest row of an entity that was known at the decision and is not older than ``max_age``."""

    name: str
    table: str
    entity: tuple[str, ...]
    known_at: str
    max_age: timedelta
    features: tuple[Feature, ...]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """What a window view computes over the events in a window.

    ``share`` is the mean of a boolean column. ``mean`` and ``share`` of no events are null, ``count`` and ``sum``
    are 0. Null values of ``of`` count neither above nor below the fraction bar; ``count`` with ``of`` counts the
    events whose value is not null (for a boolean: that are true), without ``of`` all events.
    """

    name: str
    function: AggregateFunction
    of: str | None


@dataclass(frozen=True, kw_only=True)
class WindowView:
    """Aggregates over an entity's events known in (decided_at - window, decided_at], one set for each window."""

    name: str
    table: str
    entity: tuple[str, ...]
    known_at: str
    windows: tuple[timedelta, ...]
    aggregates: tuple[Aggregate, ...]
    features: tuple[Feature, ...]

    @property
    def max_age(self) -> timedelta:
        """How far back an event can still count: the longest window."""
        return max(self.windows)

    @staticmethod
    def feature_name(view: str, aggregate: str, window: timedelta) -> str:
        """Return the column a window's aggregate is written to.

        >>> WindowView.feature_name("origin_departures", "mean_delay_minutes", timedelta(hours=3))
        'origin_departures_mean_delay_minutes_3h'
        """
        hours = int(window / timedelta(hours=1))
        return (
            f"{view}_{aggregate}_{hours // 24}d" if hours > 24 and hours % 24 == 0 else f"{view}_{aggregate}_{hours}h"
        )


FeatureView = LatestView | WindowView

# How a name says its unit (style.md): the last word, for a window's aggregate that of the aggregate.
_UNITS = {
    **{unit: unit for unit in ("seconds", "minutes", "hours", "days", "miles", "inches", "mph", "mbar", "share")},
    **{"percent": "percent", "degrees": "degrees", "f": "degrees Fahrenheit"},
}


def unit_in(name: str) -> str | None:
    """Return the unit that a column's name says, or None.

    >>> unit_in("wind_speed_mph"), unit_in("n_departures"), unit_in("temperature_f"), unit_in("is_holiday")
    ('mph', 'count', 'degrees Fahrenheit', None)
    """
    return "count" if name.startswith("n_") else _UNITS.get(name.rpartition("_")[2])


def load_feature_views(*folders: Path) -> dict[str, FeatureView]:
    """Read every feature view declared in the yml files of these folders, by name.

    Raises InvalidDeclaration for a view that lacks entity, known_at or max_age, or a name declared twice.
    """
    views: dict[str, FeatureView] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yml")):
            for model in _models_in(path.read_text()):
                for view in parse_model(model):
                    if view.name in views:
                        raise InvalidDeclaration(f"{path.name} declares the feature view {view.name!r} a second time")
                    views[view.name] = view
    return views


@lru_cache(maxsize=256)
def _models_in(document: str) -> tuple[Mapping[str, object], ...]:
    """Return the entries under ``models`` of a yml document, not to be changed.

    Loading the graph reads every file once for each stage that wants its views, and parsing is most of what that costs.
    """
    parsed = cast("dict[str, list[dict[str, object]]]", _Loader(document).get_single_data() or {})
    return tuple(parsed.get("models", []))


def parse_model(model: Mapping[str, object]) -> Iterator[FeatureView]:
    """Yield the feature views that one model's yml entry declares under ``config.meta.feature_views``.

    A view of kind ``latest`` offers the model's columns except entity, known_at and partition_on; their kind follows
    from ``data_type`` (text is categorical) unless the column's ``meta.kind`` says otherwise, their unit from the last
    word of their name unless its ``meta.unit`` does.
    """
    config = cast("dict[str, dict[str, object]]", model.get("config", {}))
    declarations = cast("list[dict[str, object]]", config.get("meta", {}).get("feature_views", []))
    for declaration in declarations:
        try:
            yield _parse_view(model, declaration)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDeclaration(
                f"model {model.get('name')!r}: the feature view {declaration.get('name')!r} is incomplete ({error!r}); "
                "expected name, entity, known_at, and max_age_hours (latest) or windows_hours and aggregates (window)"
            ) from error


def _parse_view(model: Mapping[str, object], declaration: Mapping[str, object]) -> FeatureView:
    name = identifier(cast("str", declaration["name"]))
    table = table_name(f"features.{model['name']}")
    entity = tuple(identifier(column) for column in cast("list[str]", declaration["entity"]))
    known_at = identifier(cast("str", declaration["known_at"]))
    if "windows_hours" not in declaration:
        hidden = {*entity, known_at, "partition_on"}
        columns = cast("list[dict[str, object]]", model["columns"])
        return LatestView(
            name=name,
            table=table,
            entity=entity,
            known_at=known_at,
            max_age=timedelta(hours=cast("float", declaration["max_age_hours"])),
            features=tuple(_feature(name, column) for column in columns if column["name"] not in hidden),
        )
    windows = tuple(_window(hours) for hours in cast("list[object]", declaration["windows_hours"]))
    aggregates = tuple(_aggregate(one) for one in cast("list[dict[str, str]]", declaration["aggregates"]))
    if not windows or not aggregates:
        raise ValueError("it has no window or no aggregate")
    return WindowView(
        name=name,
        table=table,
        entity=entity,
        known_at=known_at,
        windows=windows,
        aggregates=aggregates,
        features=tuple(
            Feature(
                name=identifier(WindowView.feature_name(name, a.name, w)),
                kind="numeric",
                view=name,
                description=_aggregate_text(a, w, f"{model['name']} with the same {', '.join(entity)}"),
                unit=unit_in(a.name),
            )
            for w in windows
            for a in aggregates
        ),
    )


def _aggregate_text(aggregate: Aggregate, window: timedelta, rows: str) -> str:
    what = f"{aggregate.function.capitalize()}{f' of {aggregate.of}' if aggregate.of else ''}"
    hours = int(window / timedelta(hours=1))
    return f"{what} over the rows of {rows} that became known in the {hours} h up to the decision."


def _window(hours: object) -> timedelta:
    if not isinstance(hours, int) or hours < 1:
        raise ValueError(f"a window of {hours!r} hours; expected a whole number of them, 1 at least")
    return timedelta(hours=hours)


def _aggregate(declaration: Mapping[str, str]) -> Aggregate:
    name, function, of = declaration["name"], declaration["function"], declaration.get("of")
    if function not in get_args(AggregateFunction):
        raise ValueError(f"{name!r} is a {function!r}; expected one of {', '.join(get_args(AggregateFunction))}")
    if of is None and function != "count":
        raise ValueError(f"{name!r} is a {function} of no column; name one with `of`")
    return Aggregate(
        name=identifier(name), function=cast("AggregateFunction", function), of=identifier(of) if of else None
    )


def _feature(view: str, column: Mapping[str, object]) -> Feature:
    config = cast("dict[str, dict[str, str]]", column.get("config", {}))
    is_text = str(column["data_type"]).lower() in {"string", "varchar", "text"} or "type_string" in str(
        column["data_type"]
    )
    kind = config.get("meta", {}).get("kind", "categorical" if is_text else "numeric")
    if kind not in ("numeric", "categorical"):
        raise ValueError(f"column {column['name']!r} has kind {kind!r}; expected numeric or categorical")
    name = identifier(cast("str", column["name"]))
    unit = config.get("meta", {}).get("unit", unit_in(name)) if kind == "numeric" else None
    return Feature(name=name, kind=kind, view=view, description=str(column.get("description", "")), unit=unit)
