import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import BadInput
from ml_assets.core.experiment_filters import Condition, found, ordered, select
from ml_assets.core.experiment_rows import Experiment, experiments
from ml_assets.core.experiments import ExperimentLog, track_decision
from ml_assets.core.promotion import Gate
from ml_assets.core.registry import refuse
from ml_assets.core.studies import TrialRecord
from ml_assets.core.trainers import lightning
from ml_assets.core.tuned_parameters import TunedParameters, save_tuned_parameters

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRIED_AT = datetime(2026, 11, 24, 10, tzinfo=UTC)


class Clock:
    """Twelve o'clock, and a minute later at every look."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return NOON + timedelta(minutes=self.looks - 1)


def log_in(store, *, run_id: str = "r1") -> ExperimentLog:
    return ExperimentLog(store=store, now=Clock(), recorded_by="dagster", run_id=run_id)


@pytest.fixture
def short(use_case):
    return replace(use_case, hyperparameters={"layer_sizes": "8", "n_epochs": 2})


def test_a_training_is_a_row_with_what_it_was_made_of_and_what_came_of_it(train, store, short, trained):
    package = train(store=store, use_case=short, experiments=log_in(store)).package
    (row,) = experiments(store)
    assert (row.kind, row.status, row.use_case) == ("training", "complete", "storm_delay")
    assert (row.as_of, row.started_at, row.seconds) == (date(2013, 1, 31), NOON, 60.0)
    assert (row.version, row.trainer, row.seed) == (package.version, "lightning", short.seed)
    assert row.parameters == package.manifest.recipe.hyperparameters
    assert row.training_set == trained[0].fingerprint
    assert row.n_rows == {"train": 1800, "validation": 400, "test": 600}
    assert (row.first_day, row.last_day) == (date(2013, 1, 1), date(2013, 1, 30))
    assert (row.code_version, row.parent_version) == ("c1", "")
    assert row.environment_hash == package.manifest.environment_hash
    assert row.metrics["roc_auc"] == package.metrics.holdout.roc_auc
    assert row.metrics["logistic_log_loss"] == package.metrics.baselines["logistic"].log_loss
    assert row.metrics["n_epochs"] == 2
    assert row.intervals == package.metrics.intervals
    assert (row.recorded_by, row.run_id, row.reason) == ("dagster", "r1", "")


def test_a_model_without_a_record_of_its_training_is_a_row_all_the_same(trained):
    _, candidate, store, _ = trained
    (row,) = experiments(store)
    metrics = candidate.package.metrics
    assert (row.id, row.status, row.started_at) == (candidate.package.version[-12:], "complete", None)
    assert row.metrics["pr_auc"] == metrics.holdout.pr_auc
    assert row.metrics["validation_loss"] == metrics.validation_loss
    assert row.intervals == metrics.intervals


def test_a_training_used_again_is_a_second_row_with_the_same_figures(train, store, short):
    train(store=store, use_case=short, experiments=log_in(store))
    assert train(store=store, use_case=short, experiments=log_in(store, run_id="r2")).is_reused
    again, first = sorted(experiments(store), key=lambda row: row.status, reverse=True)
    assert (first.status, first.run_id, again.status, again.run_id) == ("complete", "r1", "reused", "r2")
    assert first.id != again.id
    assert again.metrics["roc_auc"] == first.metrics["roc_auc"]


def test_a_training_that_fails_is_a_row_with_the_error_and_raises_it(train, store, short, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("the loss is nan after epoch 1")

    monkeypatch.setattr(lightning.LightningTrainer, "fit", fail)
    with pytest.raises(ValueError, match="the loss is nan"):
        train(store=store, use_case=short, experiments=log_in(store))
    (row,) = experiments(store)
    assert (row.status, row.reason) == ("failed", "ValueError: the loss is nan after epoch 1")
    assert row.parameters["layer_sizes"] == "8"
    assert row.metrics == {}


def test_an_end_that_cannot_be_recorded_does_not_hide_why_a_training_failed(train, store, short, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(store, "create", full)
        raise ValueError("the loss is nan after epoch 1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lightning.LightningTrainer, "fit", fail)
    with pytest.raises(ValueError, match="the loss is nan") as raised:
        train(store=store, use_case=short, experiments=log_in(store))
    assert ["No space left on device" in note for note in raised.value.__notes__] == [True]
    monkeypatch.undo()
    assert [row.status for row in experiments(store)] == ["unfinished"]


def test_a_training_that_never_came_to_an_end_is_unfinished(train, store, short):
    train(store=store, use_case=short, experiments=log_in(store))
    (path,) = [path for path in store.files if path.endswith(".ended.json")]
    del store.files[path]  # as a kill leaves it: the package may be there, or not
    rows = {row.status: row for row in experiments(store)}
    assert set(rows) == {"unfinished", "complete"}
    assert (rows["unfinished"].seconds, rows["unfinished"].metrics) == (None, {})


def tuned(*trials: TrialRecord) -> TunedParameters:
    return TunedParameters(
        use_case="storm_delay",
        as_of=date(2013, 1, 31),
        study="storm_delay-1",
        training_set="ab" * 32,
        last_validation_day=date(2013, 1, 20),
        trainer="lightning",
        defaults={"dropout": 0.1, "learning_rate": 0.02},
        parameters={"dropout": 0.1, "learning_rate": 0.01},
        default_loss=0.5,
        loss=0.4,
        trials=trials,
    )


def test_trials_and_decisions_are_rows_with_what_their_own_files_say(store, spy):
    save_tuned_parameters(
        store,
        tuned(
            TrialRecord(
                number=0,
                state="complete",
                parameters={"learning_rate": 0.01},
                loss=0.4,
                n_epochs=3,
                reason="",
                started_at=TRIED_AT,
                seconds=7.5,
            ),
            TrialRecord(
                number=1,
                state="failed",
                parameters={"learning_rate": 9.0},
                loss=None,
                n_epochs=0,
                reason="BadInput: the validation loss is nan",
            ),
        ),
    )
    gate = Gate(name="roc_auc_floor", is_passed=False, found=0.61, expected=0.7, detail="ROC AUC 0.61 is too low")
    entry = refuse(
        store,
        use_case="storm_delay",
        version="2013-01-31-abc",
        package_hash="9f" * 32,
        effective_from=date(2013, 1, 31),
        as_of=date(2013, 1, 31),
        reason=gate.detail,
        gates=[gate],
        recorded_at=NOON,
        recorded_by="gates",
    )
    decision, complete, failed = experiments(store)
    assert (decision.kind, decision.status, decision.id) == ("promotion", "refuse", "storm_delay.1")
    assert (decision.metrics, decision.reason) == ({"roc_auc_floor": 0.61}, "ROC AUC 0.61 is too low")
    assert (complete.kind, complete.started_at, complete.seconds) == ("trial", TRIED_AT, 7.5)
    assert complete.parameters == {"dropout": 0.1, "learning_rate": 0.01}
    assert complete.metrics == {"validation_loss": 0.4, "n_epochs": 3.0}
    assert (failed.status, failed.reason) == ("failed", "BadInput: the validation loss is nan")

    track_decision(spy, entry, store)
    assert spy.parameters["run_name"] == "refuse 2013-01-31-abc"
    assert spy.summaries == [{"ledger_sequence": 1, "roc_auc_floor": 0.61}]
    ((verb, model),) = spy.artifacts
    assert (verb, model.kind, model.version, model.digest) == ("used", "model", entry.version, entry.package_hash)
    assert model.alias == "candidate"
    for action, alias in {"promote": "champion", "rollback": "champion", "approve": "candidate"}.items():
        track_decision(spy, replace(entry, action=action, gates=()), store)
        assert spy.artifacts[-1][1] == replace(model, alias=alias)
        assert spy.summaries[-1], "without any the run would be marked as failed"


def test_the_tracker_is_told_which_training_set_a_model_was_made_of(trained):
    training_set, candidate, store, tracker = trained
    (read, of_set), (written, of_model) = tracker.artifacts
    assert (read, of_set.kind, of_set.digest) == ("used", "training_set", training_set.fingerprint)
    assert of_set.facts["n_train"] == training_set.train.num_rows
    assert (written, of_model.kind, of_model.digest) == ("made", "model", candidate.package.package_hash)
    for artifact in (of_set, of_model):
        assert store.exists(artifact.address.removeprefix("memory://"))


def test_a_damaged_file_is_a_row_that_says_so_and_hides_no_other(train, store, short):
    train(store=store, use_case=short, experiments=log_in(store))
    started, ended = sorted((path for path in store.files if path.startswith("experiments/")), reverse=True)
    version = next(path for path in store.files if path.endswith("manifest.json")).split("/")[2]
    assert ended.endswith(".ended.json")
    store.files[ended] = b'{"status": "comp'
    store.files["ledger/storm_delay/000001.json"] = b"{}"
    store.files["tuned/storm_delay/2013-01-31.json"] = b"\xff\xfe"
    store.files[f"models/storm_delay/{version}/metrics.json"] = b"[]"
    rows = experiments(store)
    assert {(row.kind, row.status) for row in rows} == {
        (kind, "damaged") for kind in ("training", "promotion", "trial")
    }
    assert [row.reason.partition(": ")[0] for row in rows if row.started_at] == [ended]
    assert {row.use_case for row in rows} == {"storm_delay"}
    store.files[started] = b""
    assert [row.id for row in experiments(store) if started in row.reason] == [started[-23:-13]]


@pytest.fixture
def spy(trained):
    return type(trained[3])()


ROWS = [
    Experiment(
        id="aa1",
        kind="training",
        status="complete",
        use_case="storm_delay",
        version="2013-07-01-aaa",
        started_at=NOON,
        seed=7,
        parameters={"layer_sizes": "64,32", "dropout": 0.1},
        metrics={"roc_auc": 0.74},
    ),
    Experiment(
        id="aa2",
        kind="training",
        status="failed",
        use_case="air_time",
        version="2013-07-01-aab",
        started_at=NOON - timedelta(days=1),
        parameters={"n_leaves": 31},
        metrics={"mae": 5.5},
    ),
    Experiment(id="bb.1", kind="trial", status="pruned", use_case="air_time", as_of=date(2013, 7, 1)),
]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["roc_auc>0.73"], ["aa1"]),
        (["roc_auc >= 0.75"], []),
        (["layer_sizes=64,32"], ["aa1"]),
        (["n_leaves==31", "mae<6"], ["aa2"]),
        (["n_leaves!=31"], []),
        (["use_case != air_time"], ["aa1"]),
        (["seed=7"], ["aa1"]),
    ],
)
def test_conditions_keep_the_rows_they_are_true_of(conditions, expected):
    kept = select(ROWS, conditions=[Condition.parse(text) for text in conditions])
    assert [row.id for row in kept] == expected


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "roc_auc", "roc_auc>", ">0.7", "roc_auc>high", ""])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(BadInput, match=r"is no condition|is no number"):
        Condition.parse(text)


def test_a_name_that_no_row_has_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match=r"no experiment has a 'rocauc'; there are .*roc_auc"):
        select(ROWS, conditions=[Condition.parse("rocauc>0.7")])
    with pytest.raises(BadInput, match="no experiment has a 'rocauc'"):
        ordered(ROWS, "rocauc")


def test_rows_are_kept_by_kind_status_use_case_and_day():
    assert [row.id for row in select(ROWS, kind="trial")] == ["bb.1"]
    assert [row.id for row in select(ROWS, status="failed", use_case="air_time")] == ["aa2"]
    assert [row.id for row in select(ROWS, since=date(2026, 11, 24))] == ["aa1"]
    assert [row.id for row in select(ROWS, until=date(2026, 11, 23))] == ["aa2", "bb.1"]


def test_rows_without_the_value_come_last_whatever_the_order():
    more = [*ROWS, replace(ROWS[0], id="cc1", metrics={"roc_auc": 0.8})]
    assert [row.id for row in ordered(more, "roc_auc")] == ["cc1", "aa1", "aa2", "bb.1"]
    assert [row.id for row in ordered(more, "roc_auc", is_ascending=True)] == ["aa1", "cc1", "aa2", "bb.1"]


def test_an_experiment_is_found_by_id_its_beginning_or_its_version():
    assert found(ROWS, "aa2").id == found(ROWS, "2013-07-01-aab").id == "aa2"
    assert found(ROWS, "bb").id == "bb.1"
    with pytest.raises(BadInput, match=r"2 experiments are called 'aa': aa1 .*, aa2 "):
        found(ROWS, "aa")
    with pytest.raises(BadInput, match="no experiment is called 'zz'"):
        found(ROWS, "zz")


def test_two_thousand_trainings_are_listed_within_two_seconds_of_cpu(train, store, short, tmp_path):
    train(store=store, use_case=short, experiments=log_in(store))
    started, ended = sorted((path for path in store.files if path.startswith("experiments/")), reverse=True)
    folder = tmp_path / "store" / "experiments" / "storm_delay"
    folder.mkdir(parents=True)
    document = msgspec.json.decode(store.files[started])
    for number in range(2000):
        name = f"20261124t120000.{number:06}z-{number:010x}"
        document["id"] = f"{number:010x}"
        (folder / f"{name}.started.json").write_bytes(msgspec.json.encode(document))
        (folder / f"{name}.ended.json").write_bytes(store.files[ended])
    began = time.process_time()
    rows = experiments(ObjectArtifactStore((tmp_path / "store").as_uri()))
    seconds = time.process_time() - began
    assert len({row.id for row in rows}) == 2000
    assert {row.status for row in rows} == {"complete"}
    assert seconds < 2.0, f"{seconds:.2f} s"
