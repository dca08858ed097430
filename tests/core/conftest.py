"""What several tests of the library share: a store in memory, and a small use case whose rule is known."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.candidates import TrainedCandidate, train_candidate
from ml_assets.core.errors import AlreadyExists, ArtifactMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import Parameter, StoredFile, TrackedArtifact
from ml_assets.core.spec import Decisions, Label, SplitRule, UseCase
from ml_assets.core.training_sets import TrainingSet, freeze

FIRST_DAY = date(2013, 1, 1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is first imported


class MemoryStore:
    """An artifact store in memory.

    Its files were written long ago, unless ``modified_at`` says otherwise.
    """

    n_reads_at_once = 1

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.modified_at: dict[str, datetime] = {}

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def create(self, path: str, content: bytes) -> None:
        if path in self.files:
            raise AlreadyExists(path)
        self.files[path] = content

    def get(self, path: str) -> bytes:
        if path not in self.files:
            raise ArtifactMissing(path)
        return self.files[path]

    def size(self, path: str) -> int:
        return len(self.get(path))

    def exists(self, path: str) -> bool:
        return path in self.files

    def list(self, prefix: str) -> Sequence[str]:
        return sorted(path for path in list(self.files) if path.startswith(f"{prefix}/"))

    def describe(self, prefix: str) -> Sequence[StoredFile]:
        return [
            StoredFile(
                path=path,
                size=len(content),
                modified_at=self.modified_at.get(path, LONG_AGO),
                tag=f"{crc32(content):x}",
            )
            for path, content in sorted(self.files.copy().items())
            if path.startswith(f"{prefix}/" if prefix else "")
        ]

    def delete(self, path: str) -> None:
        self.files.pop(path, None)

    def address(self, path: str) -> str:
        return f"memory://{path}"


class SpyTracker:
    """A tracker, and its own run, that remembers what it was told."""

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summaries: list[dict[str, float]] = []
        self.artifacts: list[tuple[str, TrackedArtifact]] = []

    def start(
        self, *, use_case: str, run_name: str, parameters: Mapping[str, Parameter], job_type: str = "training"
    ) -> "SpyTracker":
        self.parameters = {"use_case": use_case, "run_name": run_name, "job_type": job_type, **parameters}
        return self

    def used(self, artifact: TrackedArtifact) -> None:
        self.artifacts.append(("used", artifact))

    def made(self, artifact: TrackedArtifact) -> None:
        self.artifacts.append(("made", artifact))

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.logged.append((step, dict(metrics)))

    def finish(self, summary: Mapping[str, float]) -> None:
        self.summaries.append(dict(summary))


def make_examples(n_days: int = 30, n_per_day: int = 100, *, seed: int = 7) -> pa.Table:
    """Return examples whose label is true where it storms at EWR, with 5 of 100 labels turned round."""
    draw = np.random.default_rng(seed)
    n = n_days * n_per_day
    days = [FIRST_DAY + timedelta(days=row // n_per_day) for row in range(n)]
    decided_at = [datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in days]
    wind = draw.uniform(0, 40, n)
    origin = draw.choice(["EWR", "JFK", "LGA"], n)
    label = ((wind > 20) & (origin == "EWR")) ^ (draw.random(n) < 0.05)
    return pa.table(
        {
            "decision_id": [f"UA-{row}" for row in range(n)],
            "partition_on": pa.array(days, pa.date32()),
            "decided_at": pa.array(decided_at, pa.timestamp("us", tz="UTC")),
            "origin": origin,
            "wind_speed_mph": pa.array(wind, mask=draw.random(n) < 0.05),
            "is_holiday": pa.array(draw.random(n) < 0.1),
            "label": pa.array(label),
            "label_known_at": pa.array([at + timedelta(hours=5) for at in decided_at], pa.timestamp("us", tz="UTC")),
            "no_label_reason": pa.nulls(n, pa.string()),
        }
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="session")
def inputs() -> tuple[Feature, ...]:
    return (
        Feature(name="origin", kind="categorical", view="schedule", description="Airport of departure."),
        Feature(name="wind_speed_mph", kind="numeric", view="weather", description="Mean wind.", unit="mph"),
        Feature(name="is_holiday", kind="numeric", view="schedule", description="Whether the day is a holiday."),
    )


@pytest.fixture(scope="session")
def use_case() -> UseCase:
    return UseCase(
        name="storm_delay",
        question="Will it storm?",
        owners=("team@example.com",),
        task="binary_classification",
        decisions=Decisions(table="features.flights", event_at="departs_at", lead_time=timedelta(hours=2)),
        label=Label(table="labels.label_storm"),
        features=("schedule", "weather"),
        hyperparameters={"layer_sizes": "16", "n_epochs": 8, "learning_rate": 0.02},
        baseline_features=("wind_speed_mph",),
        split=SplitRule(validation_days=4, test_days=6),
    )


@pytest.fixture(scope="session")
def examples() -> pa.Table:
    return make_examples()


Trained = tuple[TrainingSet, TrainedCandidate, MemoryStore, SpyTracker]


@pytest.fixture(scope="session")
def trained(
    examples: pa.Table, inputs: tuple[Feature, ...], use_case: UseCase, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """One training, shared: tests that change the store copy it first."""
    store, tracker = MemoryStore(), SpyTracker()
    training_set = freeze(
        examples, use_case=use_case, inputs=inputs, as_of=date(2013, 1, 31), code_version="c1", store=store
    )
    candidate = train_candidate(
        training_set,
        use_case=use_case,
        inputs=inputs,
        store=store,
        tracker=tracker,
        code_version="c1",
        parent=None,
        on_epoch=lambda epoch, metrics: None,
        work_folder=tmp_path_factory.mktemp("work"),
    )
    return training_set, candidate, store, tracker


Train = Callable[..., TrainedCandidate]


@pytest.fixture
def train(trained: Trained, inputs: tuple[Feature, ...], use_case: UseCase, tmp_path: Path) -> Train:
    """Train once more, with what differs from the shared training given by name."""
    training_set = trained[0]

    def _train(**changes: object) -> TrainedCandidate:
        arguments: dict[str, object] = {
            "use_case": use_case,
            "inputs": inputs,
            "store": MemoryStore(),
            "tracker": SpyTracker(),
            "code_version": "c1",
            "parent": None,
            "on_epoch": lambda epoch, metrics: None,
            "work_folder": tmp_path,
            **changes,
        }
        return train_candidate(arguments.pop("training_set", training_set), **arguments)  # pyright: ignore

    return _train
