"""What stands on a day, from the asset that writes it to the check that fails and the people who are told."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core import alarms as core_alarms
from ml_assets.core import registry
from ml_assets.core.monitored import DRIFT
from ml_assets.core.ports import DayRange
from ml_assets.defs import alerts
from ml_assets.defs.monitoring import alarms, retraining
from ml_assets.use_cases import arrival_delay

pytestmark = [pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]

USE_CASE = arrival_delay.USE_CASE
FIRST = date(2013, 7, 1)
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Log:
    def __init__(self) -> None:
        self.sent = list[tuple[str, str]]()

    def send(self, *, title: str, text: str) -> None:
        self.sent.append((title, text))


class Monitoring:
    """The assets of one use case over empty tables, and the sensor that tells people."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.warehouse, self.instance, self.log = DuckDBWarehouse(home / "warehouse.duckdb"), instance, Log()
        self.store = ObjectArtifactStore((home / "artifacts").as_uri())
        self.definitions = dg.Definitions.merge(
            alarms.defs(),
            retraining.defs(),
            dg.Definitions(
                sensors=[alerts.alarms_told],
                resources={"warehouse": self.warehouse, "store": self.store, "alerter": self.log},
            ),
        )
        self.cursor: str | None = None

    def drifted(self, day: int, severity: str) -> None:
        """Write of a day that one feature drifted: ``severe`` is a broken feed."""
        on = FIRST + timedelta(days=day - 1)
        row = {"use_case": USE_CASE.name, "partition_on": on, "feature": "wind_speed_mph", "kind": "numeric"}
        row |= {"is_drifted": bool(severity), "severity": severity, "explanation": "it moved", "moved_share": 0.1}
        row |= {"model_version": "v1", "n_rows": 1000, "bin_counts": ""}
        rows = pa.Table.from_pylist([row])
        self.warehouse.replace_days({DRIFT: rows}, DayRange(first=on, last=on), use_case=USE_CASE.name)

    def materialize(self, stage: str, day: int) -> dg.ExecuteInProcessResult:
        asset = self.definitions.resolve_assets_def(USE_CASE.key(stage))
        return dg.materialize(
            [asset],
            partition_key=(FIRST + timedelta(days=day - 1)).isoformat(),
            instance=self.instance,
            run_config=SILENT,
        )

    def tick(self) -> None:
        """Let the sensor look."""
        resources = {"alerter": self.log, "store": self.store}
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=self.definitions, resources=resources
        )
        self.cursor = self.definitions.resolve_sensor_def("alarms_told").evaluate_tick(context).cursor


@pytest.fixture
def monitoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitoring]:
    def load(store: object, name: str, version: str) -> SimpleNamespace:
        holdout = SimpleNamespace(roc_auc=0.75, positive_share=0.4)
        return SimpleNamespace(version=version, reference=None, metrics=SimpleNamespace(holdout=holdout))

    monkeypatch.setattr(core_alarms, "recall_package", load)
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    for stage in (alarms, retraining, alerts):
        monkeypatch.setattr(stage, "load_use_cases", lambda: (USE_CASE,))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Monitoring(tmp_path, instance)


@pytest.mark.parametrize(
    ("severity", "is_passed", "of_check"),
    [("", True, None), ("warning", False, "WARN"), ("severe", False, "ERROR")],
)
def test_the_check_fails_where_an_alarm_stands_as_an_error_where_it_is_severe_and_stops_no_run(
    monitoring: Monitoring, severity: str, is_passed: bool, of_check: str | None
):
    for day in (1, 2):
        monitoring.drifted(day, severity)
    result = monitoring.materialize("alarms", 2)
    [check] = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, result.success) == ("no_alarm", is_passed, True)
    assert check.description == ("no alarm stands" if is_passed else "wind_speed_mph: it moved, on 2013-07-02")
    assert is_passed or check.severity.value == of_check
    monitoring.tick()
    kind = {"warning": "warning drift", "severe": "severe broken feed"}.get(severity)
    assert [title for title, _ in monitoring.log.sent] == (
        [f"arrival_delay: {kind} alarm on 2013-07-02 since 2013-07-01"] if kind else []
    )


def refuse(store: ObjectArtifactStore, as_of: date) -> None:
    registry.refuse(
        store,
        use_case=USE_CASE.name,
        version=f"v-{as_of}",
        package_hash="a" * 64,
        effective_from=as_of,
        as_of=as_of,
        reason="",
        gates=(),
        recorded_at=datetime(2013, 7, 5, tzinfo=UTC),
        recorded_by="gates",
    )


def test_that_retraining_has_stopped_is_told_the_same_morning_and_once(monitoring: Monitoring):
    for n in range(USE_CASE.retraining.most_refusals):
        monitoring.materialize("retraining", 1 + n)
        monitoring.tick()
        assert monitoring.log.sent == []
        refuse(monitoring.store, FIRST + timedelta(days=1 + n))
    for day in (5, 6):
        assert monitoring.materialize("retraining", day).success
        monitoring.tick()
    [(title, text)] = monitoring.log.sent
    assert title == "arrival_delay: severe retraining alarm on 2013-07-05"
    assert text.startswith("stopped: 3 candidates in a row were refused")
    assert "ml-assets resume --use-case arrival_delay" in text
    assert text.splitlines()[-1] == monitoring.store.address("reports/arrival_delay/2013-07-05.html")
