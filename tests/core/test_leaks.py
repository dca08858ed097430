from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from ml_assets.core.leaks import leak_check

# The as-of date, 31 January, begins at 05:00 UTC in New York.
AS_OF_AT = datetime(2013, 1, 31, 5, tzinfo=UTC)


def test_a_sound_training_set_has_no_leak(trained):
    training_set, candidate, _, _ = trained
    found = leak_check(training_set, candidate.package.manifest, as_of_at=AS_OF_AT)
    assert found.n_labels_too_late == 0
    assert found.newest_label_known_at == training_set.test["label_known_at"].to_pylist()[-1] < AS_OF_AT
    assert found.last_day_seen == training_set.days.validation[-1]
    assert found.first_holdout_day == training_set.days.test[0]
    assert found.n_days_between == 2


def test_each_label_that_was_not_known_when_the_as_of_date_began_is_counted(trained):
    training_set, candidate, _, _ = trained
    newest = max(training_set.test["label_known_at"].to_pylist())
    # 100 examples a day, all of a day known at the same time: the last day is too late, to the microsecond.
    at_that_moment = leak_check(training_set, candidate.package.manifest, as_of_at=newest)
    assert at_that_moment.n_labels_too_late == 100
    after = leak_check(training_set, candidate.package.manifest, as_of_at=newest + timedelta(microseconds=1))
    assert after.n_labels_too_late == 0


def test_a_label_that_is_not_known_at_all_is_too_late(trained):
    training_set, candidate, _, _ = trained
    train = training_set.train
    place = train.column_names.index("label_known_at")
    unknown = pa.array([None] * 3 + train["label_known_at"].to_pylist()[3:], train.schema.field(place).type)
    broken = replace(training_set, train=train.set_column(place, "label_known_at", unknown))
    assert leak_check(broken, candidate.package.manifest, as_of_at=AS_OF_AT).n_labels_too_late == 3


def test_a_holdout_that_holds_a_day_of_training_is_found_in_the_rows_and_in_the_manifest(trained):
    training_set, candidate, _, _ = trained
    manifest = candidate.package.manifest
    mixed = replace(training_set, validation=pa.concat_tables([training_set.validation, training_set.test.slice(0, 1)]))
    assert leak_check(mixed, manifest, as_of_at=AS_OF_AT).n_days_between == 0
    fitted_later = replace(manifest, last_train_day=date(2013, 1, 29))
    assert leak_check(training_set, fitted_later, as_of_at=AS_OF_AT).n_days_between < 0
