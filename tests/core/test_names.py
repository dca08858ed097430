from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.core.errors import InvalidName
from ml_assets.core.names import artifact_path, identifier, table_name

ROOT = Path("/srv/artifacts")


@pytest.mark.parametrize("name", ["a", "wind_speed_mph", "n24", "a" * 63])
def test_an_identifier_of_lower_case_letters_digits_and_underscores_passes(name: str):
    assert identifier(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "Wind", "2fast", "_hidden", "wind-speed", "wind speed", "wind;drop table raw.flights", "a" * 64),
        *("wind\n", 'a"b', "a'b", "a`b", "größe", "a.b", "a\x00"),
    ],
)
def test_anything_else_is_no_identifier(name: str):
    with pytest.raises(InvalidName):
        identifier(name)


@pytest.mark.parametrize("name", ["flights", "raw.", ".flights", "raw.flights.more", "raw.Flights", "raw flights", ""])
def test_a_table_is_named_with_its_schema_and_nothing_more(name: str):
    with pytest.raises(InvalidName):
        table_name(name)


@pytest.mark.parametrize(
    "path",
    ["a", "models/arrival_delay/2013-07-01-3fa2c1d0/model.onnx", "ledger/x/000001.json", "reports/x/2013-07-01.html"],
)
def test_an_artifact_lies_in_folders_of_plain_names(path: str):
    assert artifact_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "a/..", "a/..b", "a..b", ".hidden", "a/.hidden"),
        *("a\\b", "A", "a b", "a\n", "a\x00b", "%2e%2e/a", "~/a", "c:/a", "a/" + "b" * 129),
    ],
)
def test_a_path_that_could_leave_its_root_or_hide_is_refused(path: str):
    with pytest.raises(InvalidName):
        artifact_path(path)


@given(st.text(alphabet="ab09._-/~\\ \n\x00%AÄ", max_size=30))
def test_whatever_passes_stays_below_its_root(path: str):
    try:
        accepted = artifact_path(path)
    except InvalidName:
        return
    resolved = (ROOT / accepted).resolve()
    assert resolved.is_relative_to(ROOT)
    assert resolved != ROOT


@pytest.mark.parametrize("check", [identifier, table_name])
@given(name=st.text(max_size=30))
def test_whatever_passes_ends_no_quoted_name_and_no_statement(check: Callable[[str], str], name: str):
    try:
        accepted = check(name)
    except InvalidName:
        return
    assert not set(accepted) & set("\"'`;-()\\ \n\t\x00/*")
