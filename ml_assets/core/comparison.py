"""Two experiments side by side: what they were made of, what came of them, and how much of the difference is noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from ml_assets.core.errors import ArtifactMissing, BadInput, MlAssetsError
from ml_assets.core.evaluation import CalibrationBin, Floats, calibration_curve
from ml_assets.core.experiment_rows import Experiment
from ml_assets.core.package import ModelPackage, load_package
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.scoring import score
from ml_assets.core.training_sets import TrainingSet, load_training_set

# What a row is summed up by: the first of these that it has.
MAIN_METRICS = ("roc_auc", "rmse", "mae", "validation_loss", "log_loss")
# What the paired bootstrap measures by name, of whichever task.
_PAIRED = ("roc_auc", "pr_auc", "log_loss", "mae", "rmse", "r2")
CONFIDENCE = 0.975  # to one side, so 95 % to both

Epochs = Sequence[tuple[int, float, float]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the comparison, as text. ``difference`` is the second less the first; empty where there is none."""

    name: str
    one: str
    other: str
    is_different: bool
    difference: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two experiments and what tells them apart.

    ``gains`` are the second's figures less the first's on the same holdout rows, with their noise; ``note`` says where
    there are none, and why. ``epochs`` and ``calibration`` are by id, for what has a package that is still there.
    """

    one: Experiment
    other: Experiment
    sections: Mapping[str, Sequence[Line]]
    note: str
    gains: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    epochs: Mapping[str, Epochs] = field(default_factory=dict[str, Epochs])
    calibration: Mapping[str, Sequence[CalibrationBin]] = field(default_factory=dict[str, Sequence[CalibrationBin]])


def main_metric(row: Experiment) -> str | None:
    """Return the name of the figure that sums a row up, or None where it has none.

    >>> main_metric(Experiment(id="1", kind="trial", status="complete", use_case="u", metrics={"validation_loss": 0.4}))
    'validation_loss'
    """
    return next((name for name in MAIN_METRICS if name in row.metrics), next(iter(row.metrics), None))


def compare_experiments(store: ArtifactStore, one: Experiment, other: Experiment) -> Comparison:
    """Lay two experiments side by side; where both models and their common holdout are there, measure the difference.

    The noise is of a paired bootstrap over the days of the holdout: the same days for both.
    """
    if one.id == other.id:
        raise BadInput(f"{one.id} is to be compared with itself; give two experiments")
    packages = {row.id: package for row in (one, other) if (package := _package_of(store, row))}
    judged: _Judged | str = (
        _judged(store, packages[one.id], packages[other.id])
        if len({one.id, other.id} & set(packages)) == 2
        else "no paired noise: "
        + " and ".join(row.id for row in (one, other) if row.id not in packages)
        + " left no model in the store that could be judged again"
    )
    gains: dict[str, Estimate] = {}
    calibration: dict[str, Sequence[CalibrationBin]] = {}
    if isinstance(judged, str):
        note = judged
    else:
        gains = _gains(judged)
        note = (
            f"Both judged on the same {len(judged.labels):,} rows of {judged.n_days} days; "
            "± is the noise of the difference: 95 % of such holdouts, by a paired bootstrap over days."
        )
        if judged.is_classification:
            calibration = {
                one.id: calibration_curve(judged.labels, judged.one),
                other.id: calibration_curve(judged.labels, judged.other),
            }
    return Comparison(
        one=one,
        other=other,
        sections=_sections(one, other, gains),
        note=note,
        gains=gains,
        epochs={row_id: package.metrics.epochs for row_id, package in packages.items() if package.metrics.epochs},
        calibration=calibration,
    )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """The rows of a holdout as two models see them; float64 [n]."""

    labels: Floats
    one: Floats
    other: Floats
    days: pa.ChunkedArray
    n_days: int
    is_classification: bool
    seed: int


def _package_of(store: ArtifactStore, row: Experiment) -> ModelPackage | None:
    if row.kind != "training" or row.status not in ("complete", "reused"):
        return None
    try:
        return load_package(store, row.use_case, row.version)
    except MlAssetsError:
        return None


def _judged(store: ArtifactStore, one: ModelPackage, other: ModelPackage) -> _Judged | str:
    """Predict the common holdout with both models, or say why there is none."""
    try:
        sets = {name: _training_set(store, package) for name, package in (("one", one), ("other", other))}
    except ArtifactMissing as error:
        return f"no paired noise: a training set is no longer there ({error})"
    first, second = sets["one"], sets["other"]
    if (one.use_case, first.manifest.files["test"].sha256) != (other.use_case, second.manifest.files["test"].sha256):
        days = (f"{found.days.test[0]} to {found.days.test[-1]}" for found in (first, second))
        return (
            f"no paired noise: they were judged on different holdouts ({', '.join(days)}), so their figures differ by "
            "their days too"
        )
    labels = first.test["label"]
    names = first.test["partition_on"]
    return _Judged(
        labels=labels.cast(pa.float64()).to_numpy(),
        one=score(one, first.test),
        other=score(other, first.test),
        days=names,
        n_days=len(names.unique()),
        is_classification=pa.types.is_boolean(labels.type),
        seed=one.manifest.recipe.seed,
    )


def _training_set(store: ArtifactStore, package: ModelPackage) -> TrainingSet:
    return load_training_set(store, package.use_case, package.manifest.recipe.training_set)


def _gains(judged: _Judged) -> dict[str, Estimate]:
    """Return the second's figures less the first's, each with its noise, for what this task is measured by."""
    resamples = DayResamples.of(judged.days.to_numpy(), seed=judged.seed)
    found: dict[str, Estimate] = {}
    has_both_classes = len(set(judged.labels.tolist())) > 1
    of_task = ("roc_auc", "pr_auc", "log_loss") if judged.is_classification else ("mae", "rmse", "r2")
    for name in of_task:
        measure: Callable[[Floats, Floats], Floats] | None = getattr(resamples, name, None)
        if measure is None or (name in ("roc_auc", "pr_auc") and not has_both_classes):
            continue
        difference = measure(judged.labels, judged.other) - measure(judged.labels, judged.one)
        estimate = resamples.estimate(difference)
        if estimate is not None:
            found[name] = estimate
    return found


def _sections(one: Experiment, other: Experiment, gains: Mapping[str, Estimate]) -> Mapping[str, Sequence[Line]]:
    names = list(dict.fromkeys([*one.parameters, *other.parameters]))
    parts = list(dict.fromkeys([*one.n_rows, *other.n_rows]))
    return {
        "experiment": [
            _line("kind", one.kind, other.kind),
            _line("use case", one.use_case, other.use_case),
            _line("as of", one.as_of, other.as_of),
            _line("status", one.status, other.status),
            _line("version", one.version, other.version),
            _line("begun (UTC)", _moment(one.started_at), _moment(other.started_at)),
            _number_line("seconds", one.seconds, other.seconds, digits=1),
            _line("by", one.recorded_by, other.recorded_by),
            _line("reason", one.reason, other.reason),
        ],
        "parameters": [
            _line("trainer", one.trainer, other.trainer),
            *(_line(name, one.parameters.get(name), other.parameters.get(name)) for name in names),
            _line("seed", one.seed, other.seed),
            _line("parent", one.parent_version, other.parent_version),
        ],
        "data": [
            _line("training set", one.training_set[:12], other.training_set[:12]),
            _line("days", _days(one), _days(other)),
            *(_number_line(f"rows, {part}", one.n_rows.get(part), other.n_rows.get(part), digits=0) for part in parts),
        ],
        "code": [
            _line("code version", one.code_version[:12], other.code_version[:12]),
            _line("environment", one.environment_hash[:12], other.environment_hash[:12]),
        ],
        "figures": [_metric_line(name, one, other, gains.get(name)) for name in _metrics(one, other)],
    }


def _metrics(one: Experiment, other: Experiment) -> Sequence[str]:
    """Return the names of all figures, those with intervals and the main ones first."""
    names = list(dict.fromkeys([*one.metrics, *other.metrics]))
    first = [name for name in (*_PAIRED, *MAIN_METRICS) if name in names]
    return list(dict.fromkeys([*first, *sorted(names)]))


def _line(name: str, one: object, other: object) -> Line:
    texts = ["-" if value in (None, "") else f"{value}" for value in (one, other)]
    return Line(name=name, one=texts[0], other=texts[1], is_different=texts[0] != texts[1])


def _number_line(name: str, one: float | None, other: float | None, *, digits: int) -> Line:
    texts = ["-" if value is None else f"{value:,.{digits}f}" for value in (one, other)]
    difference = "" if one is None or other is None or one == other else f"{other - one:+,.{digits}f}"
    return Line(name=name, one=texts[0], other=texts[1], is_different=texts[0] != texts[1], difference=difference)


def _metric_line(name: str, one: Experiment, other: Experiment, gain: Estimate | None) -> Line:
    values = [row.metrics.get(name) for row in (one, other)]
    texts = [
        "-" if value is None else _figure(value) + _interval(row, name)
        for value, row in zip(values, (one, other), strict=True)
    ]
    difference = ""
    if gain is not None:
        margin = gain.margin(CONFIDENCE)
        difference = f"{gain.value:+.4f}" + ("" if margin is None else f" ± {margin:.4f}")
    elif values[0] is not None and values[1] is not None and values[0] != values[1]:
        difference = f"{'-' if values[1] < values[0] else '+'}{_figure(abs(values[1] - values[0]))}"
    return Line(name=name, one=texts[0], other=texts[1], is_different=values[0] != values[1], difference=difference)


def _figure(value: float) -> str:
    """Write a figure: whole numbers as such, others with four digits that tell something.

    >>> _figure(12.0), _figure(0.73214), _figure(0.0000123)
    ('12', '0.7321', '1.23e-05')
    """
    if value == round(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"


def _interval(row: Experiment, name: str) -> str:
    interval = row.intervals.get(name)
    return f" ({interval.low:.4f}\N{EN DASH}{interval.high:.4f})" if interval else ""


def _days(row: Experiment) -> str:
    if row.kind == "promotion" or row.first_day is None:
        return ""
    return f"{row.first_day} to {row.last_day}"


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
