"""The trainer of one model per segment: any other trainer, fitted on all rows and then on those of each segment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ml_assets.core.encoding import Coded, Signature, Task, Vocabulary
from ml_assets.core.errors import InvalidDeclaration, TrainingDataMissing, TrainingFailed
from ml_assets.core.parity import answer_scale, compare
from ml_assets.core.trainers import Epoch, FittedModel, Hyperparameters, Labelled, OnEpoch, Trainer, WarmStart
from ml_assets.core.trainers.routed_graph import routed
from ml_assets.core.trainers.segment_choice import compared
from ml_assets.core.trainers.segments import SegmentOutcome, Segments

_PREFIX = "segments/"  # of the names of a segment's weights; those of the parent have none


@dataclass(frozen=True, kw_only=True)
class FittedSegments(FittedModel):
    """The parent, and the models of the segments that have one of their own.

    Attributes:
        parent: fitted on all rows.
        own: by category code, the models that answer in the parent's place.
        outcomes: what became of each segment, by its value.
        by: the categorical input that the segments go by; ``column`` is its position, ``codes`` those of its known
            values, ``cardinality`` how many codes there are.
    """

    parent: FittedModel
    own: Mapping[int, FittedModel]
    outcomes: tuple[SegmentOutcome, ...]
    by: str
    column: int
    codes: Mapping[str, int]
    cardinality: int

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The passes of the parent."""
        return self.parent.history

    @property
    def is_warm_started(self) -> bool:
        """Whether the parent was."""
        return self.parent.is_warm_started

    @property
    def libraries(self) -> Mapping[str, str]:
        """Those of the parent."""
        return self.parent.libraries

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """The learned numbers of all models, by position of the numeric column."""
        found: dict[int, np.ndarray] = {}
        for model in (self.parent, *self.own.values()):
            for column, values in model.thresholds.items():
                found[column] = np.union1d(found.get(column, np.empty(0)), values)
        return found

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return what the model in charge of each row says, float64 [n]."""
        codes = inputs.categorical[:, self.column]
        answers = np.empty(len(inputs), dtype=np.float64)
        rows_of_parent = np.flatnonzero(~np.isin(codes, list(self.own)))
        routes = [(self.parent, rows_of_parent), *((m, np.flatnonzero(codes == code)) for code, m in self.own.items())]
        for model, rows in routes:
            if len(rows):
                answers[rows] = model.predict(_rows(inputs, rows))
        return answers

    def to_onnx(self) -> bytes:
        """Return one graph in which the category code chooses the model."""
        own = {code: model.to_onnx() for code, model in self.own.items()}
        return routed(self.parent.to_onnx(), own, column=self.column, cardinality=self.cardinality)

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return the parent's weights by their names, and those of each segment with the segment before the name."""
        weights = dict(self.parent.weights())
        for value, code in self.codes.items():
            if code in self.own:
                prefix = _prefix(self.by, value)
                weights |= {f"{prefix}{name}": array for name, array in self.own[code].weights().items()}
        return weights


class SegmentedTrainer(Trainer):
    """Fits the parent with another trainer, and with the same hyperparameters and seed a model per segment.

    A segment's model starts from the weights of that segment's earlier model, else (it had none, or they no longer fit)
    from those of the parent just fitted, where the trainer can start from any. It is kept only where its loss on the
    segment's validation rows is below the parent's beyond the noise; the test part has no say. The segments are fitted
    one after the other: seeds and thread counts of the libraries are those of the process, and their fitted models do
    not travel between two.
    """

    def __init__(self, trainer: Trainer, segments: Segments) -> None:
        self._trainer = trainer
        self._segments = segments

    def resolve(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return what the other trainer does."""
        return self._trainer.resolve(hyperparameters)

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        signature: Signature,
        vocabulary: Vocabulary,
        hyperparameters: Hyperparameters,
        seed: int,
        warm_start: WarmStart | None,
        on_epoch: OnEpoch,
        work_folder: Path,
    ) -> FittedSegments:
        """Fit the parent, then each segment with enough rows; ``on_epoch`` is told of the parent's passes.

        A segment that cannot be learned (TrainingDataMissing, TrainingFailed) is left to the parent with the reason in
        its outcome; any other error is raised, as is PackageRefused where a segment's graph differs from its library.
        """
        by = self._segments.by
        names = [column.name for column in signature.categorical]
        if by not in names:
            raise InvalidDeclaration(f"there is no categorical input {by!r} to segment by; there are {names}")
        column, codes = names.index(by), vocabulary.codes(by)

        def fit_on(rows: tuple[Labelled, Labelled], start: WarmStart | None, tell: OnEpoch) -> FittedModel:
            return self._trainer.fit(
                *rows,
                signature=signature,
                vocabulary=vocabulary,
                hyperparameters=hyperparameters,
                seed=seed,
                warm_start=start,
                on_epoch=tell,
                work_folder=work_folder,
            )

        parent = fit_on((train, validation), start_of_parent(warm_start), on_epoch)
        # The earlier models were all of the same columns and layers: if the parent's weights do not fit, none do.
        earlier = warm_start if parent.is_warm_started else None
        start_of_others = WarmStart(weights=parent.weights(), signature=signature, vocabulary=vocabulary)
        own: dict[int, FittedModel] = {}
        outcomes: list[SegmentOutcome] = []
        task = signature.output.task
        scale = answer_scale(train.labels, task)
        too_few = {
            value: self._too_few(*(part.labels[_is_of(part, column, code)] for part in (train, validation)), task=task)
            for value, code in codes.items()
        }
        confidence = self._segments.confidence_of_each(sum(not reason for reason in too_few.values()))
        for value, code in codes.items():
            rows = _of_code(train, column, code), _of_code(validation, column, code)
            if too_few[value]:
                outcomes.append(_left_to_parent(value, rows, too_few[value]))
                continue
            try:
                model = fit_on(rows, _start_of(earlier, _prefix(by, value)) or start_of_others, _tell_nobody)
            except (TrainingDataMissing, TrainingFailed) as error:
                outcomes.append(_left_to_parent(value, rows, f"it could not be learned: {error}"))
                continue
            outcome = compared(value, rows, parent, model, task=task, confidence=confidence)
            outcomes.append(outcome)
            if outcome.has_own_model:
                # The gate of the whole graph tries a threshold on any rows, and few of them are this segment's.
                compare(model.to_onnx(), model, [rows[1].inputs], scale=scale)
                own[code] = model
        return FittedSegments(
            parent=parent,
            own=own,
            outcomes=tuple(outcomes),
            by=by,
            column=column,
            codes=codes,
            cardinality=vocabulary.cardinality(by),
        )

    def _too_few(self, train_labels: np.ndarray, validation_labels: np.ndarray, *, task: Task) -> str:
        """Return which rows a segment with these labels has too few of; empty for one that may have a model."""
        least = self._segments
        found = {"train rows": (len(train_labels), least.minimum_rows)}
        if task == "binary_classification":
            n_positive = int(np.count_nonzero(train_labels))
            n_rarer = min(n_positive, len(train_labels) - n_positive)
            found["train rows of the rarer label"] = n_rarer, least.minimum_of_each_class
        found["validation rows"] = len(validation_labels), least.minimum_validation_rows
        return next((f"{n:,} {what}, {needed:,} needed" for what, (n, needed) in found.items() if n < needed), "")


def _left_to_parent(value: str, rows: tuple[Labelled, Labelled], reason: str) -> SegmentOutcome:
    n_train, n_validation = (len(part.labels) for part in rows)
    return SegmentOutcome(
        value=value, n_train=n_train, n_validation=n_validation, has_own_model=False, why_parent=reason
    )


def _is_of(examples: Labelled, column: int, code: int) -> np.ndarray:
    return examples.inputs.categorical[:, column] == code


def _of_code(examples: Labelled, column: int, code: int) -> Labelled:
    rows = np.flatnonzero(_is_of(examples, column, code))
    return Labelled(inputs=_rows(examples.inputs, rows), labels=examples.labels[rows])


def _rows(inputs: Coded, rows: np.ndarray) -> Coded:
    return Coded(numeric=inputs.numeric[rows], categorical=inputs.categorical[rows])


def _prefix(by: str, value: str) -> str:
    """Return what the names of a segment's weights begin with; of no two values one begins with the other's."""
    return f"{_PREFIX}{by}/{quote(value, safe='')}/"


def start_of_parent(warm_start: WarmStart | None) -> WarmStart | None:
    """Return what the model of all rows can start from: the weights without those of segments, if there are any."""
    if warm_start is None:
        return None
    weights = {name: array for name, array in warm_start.weights.items() if not name.startswith(_PREFIX)}
    return WarmStart(weights=weights, signature=warm_start.signature, vocabulary=warm_start.vocabulary)


def _start_of(warm_start: WarmStart | None, prefix: str) -> WarmStart | None:
    """Return the weights of a segment's earlier model, or None where it had none."""
    if warm_start is None:
        return None
    weights = {n.removeprefix(prefix): array for n, array in warm_start.weights.items() if n.startswith(prefix)}
    if not weights:
        return None
    return WarmStart(weights=weights, signature=warm_start.signature, vocabulary=warm_start.vocabulary)


def _tell_nobody(_epoch: int, _metrics: Mapping[str, float]) -> None:
    """Leave a segment's passes unreported: they would be taken for more of the parent's."""
