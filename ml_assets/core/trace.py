"""One prediction traced: to its model and training set, to the rows behind each feature, and back to the same bits."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from zoneinfo import ZoneInfo

import pyarrow as pa

from ml_assets.core import registry
from ml_assets.core.days import LOCAL_ZONE_NAME
from ml_assets.core.errors import BadInput, DataMissing
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.package import ModelPackage, load_package
from ml_assets.core.point_in_time import Pruning, decisions_query, join_query
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Parameter, Warehouse
from ml_assets.core.provenance import Lineage, Provenance, Row
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.scoring import score
from ml_assets.core.served import Value, values_in, values_of
from ml_assets.core.spec import UseCase
from ml_assets.core.traced import InCharge, Model, Outcome, Prediction, Replay, Trace, Trained
from ml_assets.core.traced_views import traced_view
from ml_assets.core.training_sets import load_training_set

_MOST_IDS = 20_000


def trace(
    warehouse: Warehouse,
    store: ArtifactStore,
    use_case: UseCase,
    decision_id: str,
    *,
    views: Sequence[FeatureView],
    lineage: Lineage,
) -> Trace:
    """Trace the prediction of a decision that stands.

    Raises BadInput for a decision that was not predicted, with those of similar ids; DataMissing where its example or
    its decision is gone; PackageRefused and LedgerBroken where the package is not the one the ledger put in charge.
    """
    predicted = _prediction(warehouse, use_case, decision_id)
    entry = registry.put_in_charge(
        registry.entries(store, use_case.name), predicted.model_version, max(predicted.partition_on, _local(predicted))
    )
    package = load_package(store, use_case.name, predicted.model_version, expected_hash=entry.package_hash)
    example = _example(warehouse, use_case, predicted)
    read, read_from = _as_read(warehouse, use_case, predicted, example)
    decision, now = _decision_now(warehouse, use_case, predicted, views)
    found = Provenance(warehouse=warehouse, lineage=lineage)
    return Trace(
        use_case=use_case.name,
        question=use_case.question,
        prediction=predicted,
        in_charge=_in_charge(entry),
        model=_model(package),
        training_set=_trained(store, use_case, package, decision_id),
        read_from=read_from,
        views=tuple(traced_view(found, use_case, view, predicted, decision, read, now) for view in views),
        outcome=_outcome(example),
        replay=_replay(warehouse, use_case, package, predicted, example, read),
    )


def predicted_day(warehouse: Warehouse, use_case: UseCase, decision_id: str) -> date:
    """Return the local day of a prediction; raise BadInput for a decision that was not predicted."""
    return _prediction(warehouse, use_case, decision_id).partition_on


def _local(predicted: Prediction) -> date:
    return predicted.decided_at.astimezone(ZoneInfo(LOCAL_ZONE_NAME)).date()


def _prediction(warehouse: Warehouse, use_case: UseCase, decision_id: str) -> Prediction:
    if warehouse.columns(use_case.predictions_table) is None:
        raise BadInput(f"{use_case.name} has predicted nothing yet; materialize {use_case.name}/predictions first")
    sql = Sql(dialect=warehouse.dialect)
    names = list(Prediction.__dataclass_fields__)
    query = f"SELECT {sql.names(names)} FROM {sql.table(use_case.predictions_table)} WHERE decision_id = "
    rows = warehouse.query(query + sql.parameter("decision_id"), {"decision_id": decision_id}).to_pylist()
    if not rows:
        raise BadInput(_unknown(warehouse, use_case, decision_id))
    return Prediction(**rows[0])


def _unknown(warehouse: Warehouse, use_case: UseCase, decision_id: str) -> str:
    """Say that a decision was not predicted, and which of similar ids were."""
    sql = Sql(dialect=warehouse.dialect)
    # The whole id first, then half of it: what is mistyped is rarely its beginning.
    found: list[str] = []
    for prefix in dict.fromkeys((decision_id[: len(decision_id) // 2], decision_id[:2], "")):
        query = (
            f"SELECT decision_id FROM {sql.table(use_case.predictions_table)} "
            f"WHERE STARTS_WITH(decision_id, {sql.parameter('prefix')}) ORDER BY decision_id LIMIT {_MOST_IDS}"
        )
        ids = warehouse.query(query, {"prefix": prefix})["decision_id"].to_pylist()
        found = get_close_matches(decision_id, ids, n=3)
        if found:
            break
    similar = f"did you mean {' or '.join(found)}?" if found else "no id is similar to it"
    return f"{use_case.name} has no prediction of the decision {decision_id!r}; {similar}"


def _example(warehouse: Warehouse, use_case: UseCase, predicted: Prediction) -> pa.Table:
    sql = Sql(dialect=warehouse.dialect)
    query = (
        f"SELECT * FROM {sql.table(use_case.examples_table)} WHERE partition_on = {sql.parameter('day')} "
        f"AND decision_id = {sql.parameter('decision_id')}"
    )
    bound = {"day": predicted.partition_on, "decision_id": predicted.decision_id}
    example = warehouse.query(query, bound)
    if example.num_rows != 1:
        raise DataMissing(
            f"{use_case.examples_table} has {example.num_rows} examples of {predicted.decision_id} on "
            f"{predicted.partition_on}; materialize {use_case.name}/examples of that day"
        )
    return example


def _as_read(
    warehouse: Warehouse, use_case: UseCase, predicted: Prediction, example: pa.Table
) -> tuple[Mapping[str, Value], str]:
    """Return the features the model read and where that is written."""
    (stored,) = values_of(example)
    if warehouse.columns(use_case.served_table) is None:
        return stored, use_case.examples_table
    sql = Sql(dialect=warehouse.dialect)
    query = (
        f"SELECT features, run_id, predicted_at FROM {sql.table(use_case.served_table)} "
        f"WHERE partition_on = {sql.parameter('day')} AND decision_id = {sql.parameter('decision_id')}"
    )
    bound = {"day": predicted.partition_on, "decision_id": predicted.decision_id}
    for row in warehouse.query(query, bound).to_pylist():
        if (row["run_id"], row["predicted_at"]) == (predicted.run_id, predicted.predicted_at):
            return {**stored, **values_in(row["features"])}, use_case.served_table
    return stored, use_case.examples_table


def _decision_now(
    warehouse: Warehouse, use_case: UseCase, predicted: Prediction, views: Sequence[FeatureView]
) -> tuple[Row, Mapping[str, Value]]:
    """Return the decision with its entities, and its features as the tables give them now."""
    among = Sql(dialect=warehouse.dialect).parameter("decision_id")
    decisions = decisions_query(use_case, views, dialect=warehouse.dialect, among=among)
    bound: Mapping[str, Parameter] = {
        "first_day": predicted.partition_on,
        "last_day": predicted.partition_on,
        "decision_id": predicted.decision_id,
    }
    found = warehouse.query(decisions, bound).to_pylist()
    if not found:
        raise DataMissing(
            f"{use_case.decisions.table} has no {predicted.decision_id} on {predicted.partition_on} any more: what was "
            "predicted is not planned by now, so that its features cannot be traced"
        )
    pruning = Pruning(lead_time=use_case.decisions.longest_lead)
    joined = warehouse.query(join_query(decisions, views, dialect=warehouse.dialect, pruning=pruning), bound)
    return found[0], values_of(joined)[0]


def _in_charge(entry: LedgerEntry) -> InCharge:
    return InCharge(
        sequence=entry.sequence,
        action=entry.action,
        effective_from=entry.effective_from,
        reason=entry.reason,
        n_gates=len(entry.gates),
        recorded_at=entry.recorded_at,
        recorded_by=entry.recorded_by,
    )


def _model(package: ModelPackage) -> Model:
    manifest, recipe = package.manifest, package.manifest.recipe
    return Model(
        version=package.version,
        package_hash=package.package_hash,
        as_of=package.as_of,
        trainer=recipe.trainer,
        seed=recipe.seed,
        code_version=recipe.code_version,
        environment_hash=manifest.environment_hash,
        parent_version=recipe.parent_version,
        n_features=len(package.signature.numeric) + len(package.signature.categorical),
    )


def _trained(store: ArtifactStore, use_case: UseCase, package: ModelPackage, decision_id: str) -> Trained:
    frozen = load_training_set(store, use_case.name, package.manifest.recipe.training_set)
    parts = (frozen.train, frozen.validation, frozen.test)
    return Trained(
        fingerprint=frozen.fingerprint,
        first_day=frozen.days.train[0],
        last_day=frozen.days.test[-1],
        n_train=frozen.train.num_rows,
        n_validation=frozen.validation.num_rows,
        n_test=frozen.test.num_rows,
        has_decision=any(decision_id in set(part["decision_id"].to_pylist()) for part in parts),
    )


def _outcome(example: pa.Table) -> Outcome:
    (row,) = example.select(["label", "label_known_at", "no_label_reason"]).to_pylist()
    return Outcome(label=row["label"], known_at=row["label_known_at"], no_label_reason=row["no_label_reason"])


def _replay(
    warehouse: Warehouse,
    use_case: UseCase,
    package: ModelPackage,
    predicted: Prediction,
    example: pa.Table,
    read: Mapping[str, Value],
) -> Replay:
    alone = Replay(prediction=predicted.prediction, replayed=float(score(package, _with(example, read))[0]), among=1)
    if alone.is_identical:
        return alone
    sql = Sql(dialect=warehouse.dialect)
    query = (
        f"SELECT * FROM {sql.table(use_case.examples_table)} WHERE partition_on = {sql.parameter('day')} "
        "ORDER BY partition_on, decision_id"
    )
    day = warehouse.query(query, {"day": predicted.partition_on})
    place = day["decision_id"].to_pylist().index(predicted.decision_id)
    batch = pa.concat_tables([day.slice(0, place), _with(day.slice(place, 1), read), day.slice(place + 1)])
    replayed = float(score(package, batch)[place])
    return Replay(prediction=predicted.prediction, replayed=replayed, among=batch.num_rows)


def _with(example: pa.Table, read: Mapping[str, Value]) -> pa.Table:
    """Return an example with the features as they were read."""
    columns = {
        field.name: pa.chunked_array([pa.array([read[field.name]], field.type)])
        if field.name in read
        else example[field.name]
        for field in example.schema
    }
    return pa.table(columns, schema=example.schema)
