"""Bad input to a training: a clear error, nothing saved or promoted, and what was there before is left alone."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core import registry
from ml_assets.core.candidates import candidate_of, train_candidate
from ml_assets.core.errors import (
    BadInput,
    InvalidDeclaration,
    MlAssetsError,
    PackageRefused,
    TrainingDataMissing,
    TrainingFailed,
)
from ml_assets.core.package import list_versions, load_package
from ml_assets.core.scoring import score
from ml_assets.core.trainers import FittedModel, Trainer
from ml_assets.core.training_sets import freeze, load_training_set, training_set_of

AS_OF, LATER = date(2013, 1, 31), date(2013, 2, 1)
GRAPH = """<ir_version: 8, opset_import: ["": 17]>
    constant (float[n, k] numeric, int64[n, m] categorical) => (float[n] prediction)
    <float[1] half = {0.5}> { rows = Shape<end = 1>(numeric)  prediction = Expand(half, rows) }"""


def graph(**changes: str) -> bytes:
    from onnx import parser

    text = GRAPH
    for old, new in changes.items():
        text = text.replace({"opset": "17", "ir": "ir_version: 8", "half": "{0.5}"}.get(old, old), new)
    return parser.parse_model(text).SerializeToString()


@dataclass(frozen=True)
class Half(FittedModel):
    """Says 0.5 of everything, and exports this graph."""

    onnx: bytes

    def predict(self, inputs):
        return np.full(len(inputs), 0.5)

    def to_onnx(self) -> bytes:
        return self.onnx


@dataclass
class OwnTrainer(Trainer):
    """A trainer of one's own: ``on_fit`` is what it does."""

    on_fit: Callable[[], FittedModel]

    def fit(self, train, validation, **given) -> FittedModel:
        return self.on_fit()


@pytest.fixture
def attempt(trained, examples, use_case, inputs, tmp_path: Path) -> Callable[..., str]:
    """Freeze and train into a store that holds a champion, and return its version; the store must not lose a file."""

    def _attempt(store, *, rows: pa.Table = examples, as_of: date = LATER, **changes: object) -> str:
        own = replace(use_case, trainer="sklearn", hyperparameters={"estimator": "lightgbm", "n_estimators": 5})
        own = replace(own, **changes)
        frozen = freeze(rows, use_case=own, inputs=inputs, as_of=as_of, code_version="c1", store=store)
        return train_candidate(
            frozen,
            use_case=own,
            inputs=inputs,
            store=store,
            tracker=type(trained[3])(),
            code_version="c1",
            parent=None,
            on_epoch=lambda number, metrics: None,
            work_folder=tmp_path,
        ).package.version

    return _attempt


def promote(store, version: str, day: date) -> registry.LedgerEntry:
    return registry.promote(
        store,
        use_case="storm_delay",
        version=version,
        package_hash=load_package(store, "storm_delay", version).package_hash,
        effective_from=day,
        as_of=day,
        reason="passed",
        gates=(),
        recorded_at=datetime(2013, 8, 1, tzinfo=UTC),
        recorded_by="test",
    )


@pytest.fixture
def with_champion(trained):
    """The shared training in a store of its own, promoted."""
    store = type(trained[2])(trained[2].files)
    promote(store, trained[1].package.version, AS_OF)
    return store


def assert_champion_unharmed(store, trained, examples) -> None:
    version = trained[1].package.version
    assert registry.champion_required(store, "storm_delay", LATER).version == version
    champion = load_package(store, "storm_delay", version)
    assert champion.package_hash == trained[1].package.package_hash
    np.testing.assert_array_equal(score(champion, examples), score(trained[1].package, examples))


def column(name: str, values: object) -> Callable[[pa.Table], pa.Table]:
    def changed(rows: pa.Table) -> pa.Table:
        new = values(rows.num_rows) if callable(values) else values
        return rows.set_column(rows.column_names.index(name), name, new)

    return changed


TWICE, UNLABELLED = "1 decisions occur more than once", "3000 of 3000 examples have no label"
BAD_ROWS: dict[str, tuple[Callable[[pa.Table], pa.Table], type[MlAssetsError], str]] = {
    "no examples": (lambda rows: rows.slice(0, 0), TrainingDataMissing, "0 days have labelled examples .none at all."),
    "one class": (
        column("label", lambda n: pa.array([False] * n)),
        TrainingDataMissing,
        "labels of train are 0; a classifier needs both",
    ),
    "labels all null": (column("label", lambda n: pa.nulls(n, pa.bool_())), BadInput, UNLABELLED),
    "a decision twice": (lambda rows: pa.concat_tables([rows, rows.slice(5, 1)]), BadInput, TWICE),
    "no such column": (lambda rows: rows.drop_columns("origin"), BadInput, r"lack the columns \['origin'\]"),
    "text for a number": (
        column("wind_speed_mph", lambda n: pa.array(["strong"] * n)),
        BadInput,
        "'wind_speed_mph' has the type string; expected a number",
    ),
    "more categories than a model takes": (
        lambda rows: pa.concat_tables(
            [rows.set_column(0, "decision_id", pa.array([f"{n}-{row}" for row in range(3000)])) for n in range(20)]
        ).set_column(3, "origin", pa.array([f"N{row}" for row in range(60_000)])),
        BadInput,
        "'origin' has 36,000 values in 36,000 examples; a model takes at most 20,000: leave it out",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_examples_nothing_can_be_learned_from_are_refused(
    attempt, with_champion, trained, examples, change: Callable, error: type[MlAssetsError], message: str
):
    before = dict(with_champion.files)
    with pytest.raises(error, match=message):
        attempt(with_champion, rows=change(examples))
    kept = {p: c for p, c in with_champion.files.items() if f"as_of/{LATER}" not in p}
    assert {p: c for p, c in kept.items() if not p.startswith("training_sets/") or p in before} == before
    assert_champion_unharmed(with_champion, trained, examples)


ODD_COLUMNS = {
    "null everywhere": {
        "origin": lambda n: pa.nulls(n, pa.string()),
        "wind_speed_mph": lambda n: pa.nulls(n, pa.float64()),
        "is_holiday": lambda n: pa.nulls(n, pa.bool_()),
    },
    "not a number": {"wind_speed_mph": lambda n: pa.array(np.full(n, np.nan))},
    "infinite": {"wind_speed_mph": lambda n: pa.array(np.where(np.arange(n) % 3 == 0, np.inf, np.arange(n) % 7))},
    "beyond float32": {"wind_speed_mph": lambda n: pa.array(np.where(np.arange(n) % 3 == 0, -1e300, np.arange(n) % 7))},
}


@pytest.mark.parametrize("columns", ODD_COLUMNS.values(), ids=ODD_COLUMNS.keys())
def test_columns_without_a_usable_number_end_in_a_model_that_answers(attempt, store, examples, columns):
    for name, values in columns.items():
        examples = column(name, values)(examples)
    package = load_package(store, "storm_delay", attempt(store, rows=examples))
    answers = score(package, examples)
    assert ((answers >= 0) & (answers <= 1)).all()
    assert np.isfinite(package.metrics.baselines["logistic"].log_loss)


def test_a_baseline_takes_the_256_most_frequent_values_and_no_more(examples):
    from ml_assets.core.tasks import CLASSIFICATION

    # 300 values, the first 44 of them half as often: exactly these are taken for none.
    values = np.concatenate([np.repeat(np.arange(300), 2), np.arange(44, 300), np.arange(44, 300)])
    labels = values >= 44
    rows = pa.table({"tail": [f"N{value:03}" for value in values], "label": labels})
    asked = pa.table({"tail": ["N000", "N043", "unheard of", "N044"], "label": [True, False, True, False]})
    rare, rare_too, unseen, frequent = CLASSIFICATION.baselines(rows, asked, ("tail",))["logistic"]
    assert rare == rare_too == unseen < frequent


def failing(error: BaseException) -> Callable[[], FittedModel]:
    def fail() -> FittedModel:
        raise error

    return fail


BAD_TRAINERS: dict[str, tuple[Callable[[], FittedModel], type[BaseException], str]] = {
    "raises": (failing(ZeroDivisionError("mine")), ZeroDivisionError, "mine"),
    "has no finite loss": (failing(TrainingFailed("the log loss of epoch 1 is nan")), TrainingFailed, "is nan"),
    "is interrupted": (failing(KeyboardInterrupt("by olga")), KeyboardInterrupt, "by olga"),
    "says another number": (lambda: Half(graph(half="{0.6}")), PackageRefused, "differs from the fitted model by 0.1"),
    "says NaN": (lambda: Half(graph(half="{nan}")), PackageRefused, "by nan on row 0"),
    "names its output otherwise": (
        lambda: Half(graph(prediction="probability")),
        PackageRefused,
        "cannot run the graph: .*prediction; expected the inputs numeric",
    ),
    "names an input otherwise": (lambda: Half(graph(numeric="numbers")), PackageRefused, "expected the inputs numeric"),
    "reads one input only": (
        lambda: Half(graph(**{", int64[n, m] categorical": ""})),
        PackageRefused,
        "cannot run the graph: .*categorical",
    ),
    "gives one answer for all": (
        lambda: Half(graph(**{"Shape<end = 1>(numeric)": "Shape(half)"})),
        PackageRefused,
        r"the ONNX graph gives answers of shape \(1,\) for 400 rows",
    ),
    "has an opset of the future": (lambda: Half(graph(opset="99")), PackageRefused, "an opset that it knows"),
    "has an opset in which its operators mean something else": (
        lambda: Half(graph(opset="8", **{"<end = 1>": ""})),
        PackageRefused,
        r"the ONNX graph gives answers of shape \(800,\) for 400 rows",
    ),
    "has an IR of the future": (lambda: Half(graph(ir="ir_version: 99")), PackageRefused, "cannot run the graph"),
    "exports something else": (lambda: Half(b"no graph at all"), PackageRefused, "cannot run the graph"),
    "exports nothing": (lambda: Half(b""), PackageRefused, "cannot run the graph"),
}  # fmt: skip


@pytest.mark.parametrize(("on_fit", "error", "message"), BAD_TRAINERS.values(), ids=BAD_TRAINERS.keys())
def test_a_trainer_of_ones_own_that_misbehaves_leaves_no_trace_but_its_training_set(
    attempt, with_champion, trained, examples, on_fit: Callable, error: type[BaseException], message: str
):
    before = dict(with_champion.files)
    with pytest.raises(error, match=message):
        attempt(with_champion, trainer=OwnTrainer(on_fit), hyperparameters={})
    assert {p: c for p, c in with_champion.files.items() if not p.startswith("training_sets/") or p in before} == before
    assert_champion_unharmed(with_champion, trained, examples)


@pytest.mark.parametrize("bad", [{"n_estimators": "many"}, {"n_estimators": 0}, {"learning_rate": float("nan")}])
def test_a_hyperparameter_of_another_type_or_out_of_range_is_refused_before_anything_is_trained(
    attempt, with_champion, trained, examples, bad
):
    with pytest.raises(InvalidDeclaration, match=next(iter(bad))):
        attempt(with_champion, hyperparameters={"estimator": "lightgbm", **bad})
    assert_champion_unharmed(with_champion, trained, examples)
    assert list_versions(with_champion, "storm_delay") == [trained[1].package.version]


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Killed()], ids=["full", "killed"])
def test_a_full_disk_or_a_kill_at_any_write_promotes_nothing_loses_nothing_and_one_re_run_heals(
    attempt, with_champion, trained, examples, error: BaseException
):
    few = examples.take(np.arange(0, examples.num_rows, 10))

    def live(store) -> None:
        version = attempt(store, rows=few, trainer=OwnTrainer(lambda: Half(graph())), hyperparameters={})
        promote(store, version, LATER)

    undisturbed = type(with_champion)(with_champion.files)
    live(undisturbed)
    n_writes, written = 0, set[str]()
    while True:
        n_writes += 1
        store, countdown = type(with_champion)(with_champion.files), [n_writes]

        def failing_at_last(call, countdown=countdown):
            def write(path: str, content: bytes) -> None:
                countdown[0] -= 1
                if countdown[0] <= 0:
                    written.add(path.split("/")[0])
                    raise error
                call(path, content)

            return write

        plain = store.put, store.create
        store.put, store.create = failing_at_last(store.put), failing_at_last(store.create)
        try:
            live(store)
        except type(error):
            assert_champion_unharmed(store, trained, examples)
            assert with_champion.files.items() <= store.files.items()
            if store.exists(f"candidates/storm_delay/{LATER}.json"):
                load_package(store, "storm_delay", candidate_of(store, "storm_delay", LATER))
            if store.exists(f"training_sets/storm_delay/as_of/{LATER}.json"):
                load_training_set(store, "storm_delay", training_set_of(store, "storm_delay", LATER))
            store.put, store.create = plain
            live(store)
            assert store.files == undisturbed.files
        else:
            break
    assert n_writes - 1 == 5 + 8 + 1 + 1, "training set and pointer, package, pointer, ledger"
    assert written == {"training_sets", "models", "candidates", "ledger"}
