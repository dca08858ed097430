import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ml_assets.core.errors import BadInput, TrainingDataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import (
    examples_parameters,
    examples_sql,
    freeze,
    load_training_set,
    source_hash,
    training_set_of,
)

AS_OF = date(2013, 1, 31)


@pytest.fixture
def fingerprint_of(inputs, use_case, store):
    def _fingerprint(examples: pa.Table, **changes: object) -> str:
        arguments = {"use_case": use_case, "inputs": inputs, "as_of": AS_OF, "code_version": "c1", "store": store}
        return freeze(examples, **{**arguments, **changes}).fingerprint

    return _fingerprint


def test_the_fingerprint_does_not_know_chunks_order_file_format_or_integer_width(examples, fingerprint_of, tmp_path):
    expected = fingerprint_of(examples)
    pieces = [examples.slice(start, 137) for start in range(0, examples.num_rows, 137)]
    random.Random(5).shuffle(pieces)
    assert fingerprint_of(pa.concat_tables(pieces)) == expected
    pq.write_table(examples, tmp_path / "e.parquet", row_group_size=100)
    assert fingerprint_of(pq.read_table(tmp_path / "e.parquet")) == expected
    dictionary = examples.set_column(3, "origin", examples["origin"].dictionary_encode())
    assert fingerprint_of(dictionary) == expected
    assert fingerprint_of(examples.set_column(3, "origin", examples["origin"].cast(pa.large_string()))) == expected


def test_the_fingerprint_does_not_see_what_lies_under_a_null(examples, fingerprint_of):
    values = examples["wind_speed_mph"]
    is_null = values.is_null().to_numpy()
    other = np.where(is_null, 99.0, values.fill_null(0.0).to_numpy())
    assert fingerprint_of(examples.set_column(4, "wind_speed_mph", pa.array(other, mask=is_null))) == fingerprint_of(
        examples
    )


def test_the_fingerprint_changes_with_a_value_a_null_the_question_the_inputs_and_the_code(
    examples, fingerprint_of, use_case, inputs
):
    def with_wind(first: float | None) -> pa.Table:
        values = [first, *examples["wind_speed_mph"].to_pylist()[1:]]
        return examples.set_column(4, "wind_speed_mph", pa.array(values, pa.float64()))

    fingerprints = [
        fingerprint_of(examples),
        fingerprint_of(with_wind(1.0)),
        fingerprint_of(with_wind(0.0)),
        fingerprint_of(with_wind(None)),
        fingerprint_of(examples, code_version="c2"),
        fingerprint_of(examples, inputs=inputs[:2]),
        fingerprint_of(examples, sample_fraction=0.5),
        fingerprint_of(examples, as_of=AS_OF + timedelta(days=1)),
        fingerprint_of(examples, use_case=replace(use_case, label=replace(use_case.label, table="labels.other"))),
        fingerprint_of(examples, use_case=replace(use_case, split=replace(use_case.split, gap_days=2))),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_hyperparameters_and_owners_do_not_make_another_training_set(examples, fingerprint_of, use_case):
    other = replace(use_case, hyperparameters={"n_epochs": 1}, owners=("someone@example.com",), seed=2)
    assert fingerprint_of(examples, use_case=other) == fingerprint_of(examples)


def test_freezing_again_changes_no_file_and_a_damaged_file_is_healed(examples, fingerprint_of, store):
    fingerprint_of(examples)
    before = dict(store.files)
    fingerprint_of(examples)
    assert store.files == before
    damaged = next(path for path in before if path.endswith("train.arrow"))
    store.files[damaged] = before[damaged][:-1] + b"?"
    fingerprint_of(examples)
    assert store.files == before


def test_a_changed_byte_is_refused_when_read(examples, fingerprint_of, store, use_case):
    fingerprint = fingerprint_of(examples)
    path = f"training_sets/{use_case.name}/{fingerprint}/test.arrow"
    store.files[path] = store.files[path][:200] + b"\0" + store.files[path][201:]
    with pytest.raises(BadInput, match=r"test\.arrow has sha256"):
        load_training_set(store, use_case.name, fingerprint)


def test_a_manifest_that_is_no_json_is_refused_and_freezing_again_heals_it(examples, use_case, store, fingerprint_of):
    fingerprint = fingerprint_of(examples)
    store.put(f"training_sets/{use_case.name}/{fingerprint}/manifest.json", b"{")
    with pytest.raises(BadInput, match=r"manifest\.json is no training set manifest"):
        load_training_set(store, use_case.name, fingerprint)
    assert fingerprint_of(examples) == fingerprint
    assert load_training_set(store, use_case.name, fingerprint).fingerprint == fingerprint


def test_a_training_set_is_found_by_its_as_of_date_and_reads_back_the_same(
    examples, inputs, use_case, store, fingerprint_of
):
    fingerprint = fingerprint_of(examples)
    assert training_set_of(store, use_case.name, AS_OF) == fingerprint
    found = load_training_set(store, use_case.name, fingerprint)
    # 28 days without the gaps: 6 test, 4 validation, 18 train, of 100 each.
    assert found.counts == {"train": 1800, "validation": 400, "test": 600}
    assert found.test["partition_on"].unique().to_pylist() == list(found.days.test)
    assert found.train.column_names[3:-2] == [feature.name for feature in inputs]
    assert found.train.num_rows == 1800
    assert all(size > 0 for size in found.file_sizes.values())
    with pytest.raises(TrainingDataMissing, match="has no training set as of 2013-02-01"):
        training_set_of(store, use_case.name, date(2013, 2, 1))


def test_a_smaller_sample_is_a_part_of_a_larger_one_and_has_about_its_share(examples, use_case, inputs, store):
    def sampled(fraction: float) -> set[str]:
        training_set = freeze(
            examples,
            use_case=use_case,
            inputs=inputs,
            as_of=AS_OF,
            sample_fraction=fraction,
            code_version="c1",
            store=store,
        )
        parts = (training_set.train, training_set.validation, training_set.test)
        return {decision for part in parts for decision in part["decision_id"].to_pylist()}

    tenth, half, whole = sampled(0.1), sampled(0.5), sampled(1.0)
    assert tenth < half < whole
    # Of 2800 rows: 280 +- 5 standard deviations of 16, 1400 +- 5 of 26.
    assert abs(len(tenth) - 280) < 80
    assert abs(len(half) - 1400) < 130


def test_examples_of_the_as_of_date_without_label_or_twice_are_refused(examples, fingerprint_of):
    with pytest.raises(BadInput, match="reach 2013-01-30; a training as of 2013-01-30"):
        fingerprint_of(examples, as_of=date(2013, 1, 30))
    with pytest.raises(BadInput, match="3000 of 3000 examples have no label"):
        fingerprint_of(examples.set_column(6, "label", pa.nulls(3000, pa.bool_())))
    with pytest.raises(BadInput, match="10 decisions occur more than once"):
        fingerprint_of(pa.concat_tables([examples, examples.slice(0, 10)]))
    with pytest.raises(BadInput, match="lack the columns \\['is_holiday'\\]"):
        fingerprint_of(examples.drop_columns(["is_holiday"]))
    with pytest.raises(TrainingDataMissing, match="0 days"):
        fingerprint_of(examples.slice(0, 0))


def test_the_query_sees_no_label_that_became_known_at_or_after_the_as_of_moment(
    use_case: UseCase, inputs: tuple[Feature, ...]
):
    as_of_at = datetime(2013, 1, 31, 5, tzinfo=UTC)
    names = ["known", "just known", "too late", "never", "of the day before", "of the day", "too old"]
    early = as_of_at - timedelta(hours=9)
    known_at = [early, as_of_at - timedelta(microseconds=1), as_of_at, None, early, early, early]
    days = [date(2013, 1, 29)] * 4 + [date(2013, 1, 30), AS_OF, date(2011, 1, 1)]
    table = pa.table(
        {
            "decision_id": names,
            "partition_on": pa.array(days, pa.date32()),
            "decided_at": pa.array([as_of_at] * 7, pa.timestamp("us", tz="UTC")),
            "origin": ["EWR"] * 7,
            "wind_speed_mph": [1.0] * 7,
            "is_holiday": [False] * 7,
            "label": [True, False, True, None, True, True, True],
            "label_known_at": pa.array(known_at, pa.timestamp("us", tz="UTC")),
        }
    )
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'; CREATE SCHEMA examples")
    connection.register("rows", table)
    connection.execute("CREATE TABLE examples.storm_delay AS SELECT * FROM rows")
    sql = examples_sql(use_case, inputs, "duckdb")
    found = connection.execute(sql, examples_parameters(use_case, AS_OF, as_of_at)).fetchall()
    assert [row[0] for row in found] == ["just known", "known"]
    assert "@as_of_at" in examples_sql(use_case, inputs, "bigquery")
    assert "$" not in examples_sql(use_case, inputs, "bigquery")


def test_the_source_hash_changes_with_code_and_not_with_the_folder_or_line_ends(tmp_path: Path):
    def written(folder: str, content: bytes) -> str:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_bytes(content)
        (tmp_path / folder / "b.py").write_bytes(b"y = 1\n")
        return source_hash([tmp_path / folder / "b.py", tmp_path / folder / "a.py"])

    first = written("first", b"x = 1\n")
    assert written("second", b"x = 1\r\n") == first
    assert written("third", b"x = 2\n") != first


def test_rows_are_sorted_by_day_and_decision(trained):
    train = trained[0].train
    keys = list(zip(train["partition_on"].to_pylist(), train["decision_id"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert pc.call_function("all", [train["label"].is_valid()]).as_py()


def test_examples_that_end_more_than_a_week_before_the_as_of_date_are_refused(examples, fingerprint_of):
    assert fingerprint_of(examples, as_of=date(2013, 2, 7))
    with pytest.raises(
        TrainingDataMissing, match=r"newest labelled examples .* are of 2013-01-30; .* as of 2014-07-08"
    ):
        fingerprint_of(examples, as_of=date(2014, 7, 8))
