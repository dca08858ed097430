"""Every statement that the life sends to BigQuery, before Google's own analyser."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.backends import bigquery_sql
from ml_assets.backends.bigquery_rows import sql_type_of
from ml_assets.backends.environments import Environment
from ml_assets.cli.summary import summarise
from ml_assets.cli.trace import lineage_of
from ml_assets.core import registry, trace
from ml_assets.core.column_statistics import categories_query, numbers_query
from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature, FeatureView
from ml_assets.core.labelled_examples import examples_sql
from ml_assets.core.ml_test_score.score import RUBRIC, carry_out
from ml_assets.core.ml_test_score.subject import Bench, Subject
from ml_assets.core.package import ModelPackage
from ml_assets.core.point_in_time import examples_query
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import DayRange
from ml_assets.core.reference import build_reference
from ml_assets.core.references import predicted_versions
from ml_assets.core.scoring import PREDICTIONS_SCHEMA, score
from ml_assets.core.scoring_days import stretches_in_charge
from ml_assets.core.served import served_rows
from ml_assets.core.spec import UseCase
from ml_assets.core.view_costs import newest_rows_query, view_costs
from ml_assets.resources import feature_views_of, source_of
from ml_assets.use_cases import load_use_cases
from tests.cloud import PROJECT, Cloud
from tests.conftest import Life
from tests.google_analyser import GoogleAnalyser

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[1] / "ml_assets"
LANDED = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 14))
SERVED = DayRange(first=date(2013, 1, 12), last=date(2013, 1, 14))

# Where the code asks the warehouse something, and what a statement looks like that only this place sends.
ASKED_BY = {
    "cli/summary.py:_landed": r"select \(select count\(\*\) from raw\.flights ",
    "cli/summary.py:_monitored": r"select \* from monitoring\.alarms where use_case = @use_case and partition_on",
    "core/column_statistics.py:_ask": r"GROUP BY GROUPING SETS \(\(_day\), \(_day, _c0\)",
    "core/drift.py:_stretches_of_models": r"select partition_on, min\(model_version\) as version",
    "core/data_quality/landings.py:read_landings": r"select \* from raw\.weather_landings where partition_on",
    "core/data_quality/profiles.py:profile_days": r"GROUPING SETS \(\(partition_on\), \(partition_on, `origin`\)",
    "core/data_quality/verdicts.py:_set_aside": r"from raw\.weather_quarantine where",
    "core/data_quality/verdicts.py:verdicts_of": r"select \* from monitoring\.data_quality where",
    "core/ml_test_score/data.py:_n_without": r"AND `known_at` IS NULL",
    "core/ml_test_score/data.py:_personal_values": r"SELECT DISTINCT .* FROM `raw`\.`flights`",
    "core/ml_test_score/data.py:features_come_quickly": r"`origin_departures_tried_n_departures_5h`",
    "core/ml_test_score/subject.py:examples": r"SELECT \* FROM `examples`\.`arrival_delay` .* ORDER BY decision_id$",
    "core/ml_test_score/subject.py:n_rows_by_day": r"SELECT partition_on, COUNT\(\*\) AS n_rows FROM `examples`",
    "core/ml_test_score/subject.py:predicted": r"COUNT\(DISTINCT prediction\) AS n_distinct FROM `predictions`",
    "core/ml_test_score/subject.py:predictions": r"SELECT decision_id, prediction, model_version FROM `predictions`",
    "core/reproduction.py:read_examples": r"SELECT decision_id, .*\blabel_known_at < @as_of_at",  # as core/promoting.py
    "core/references.py:_versions_in": r"SELECT DISTINCT use_case, model_version FROM monitoring\.",
    "core/provenance.py:_select": r"SELECT \* FROM `staging`\.`stg_flights` WHERE ",
    "core/served.py:_known": r"SELECT decision_id, .* FROM predictions\.arrival_delay_served",
    "core/skew.py:_compared": r"decision_id IN \(SELECT decision_id FROM `predictions`\.`arrival_delay_served`",
    "core/reports/monitored_rows.py:rows": r"select \* from monitoring\.alarms where use_case = @use_case",
    "core/reports/write.py:_newest_day": r"select max\(partition_on\) as newest from monitoring\.drift where use_case",
    "core/reports/write.py:_severities": r"select use_case, partition_on, severity from monitoring\.alarms where",
    "core/trace.py:_as_read": r"SELECT features, run_id, predicted_at FROM `predictions`",
    "core/trace.py:_decision_now": r"decision_id IN \(@decision_id\)",
    "core/trace.py:_example": r"SELECT \* FROM `examples`\.`arrival_delay` WHERE partition_on = @day AND decision_id",
    "core/trace.py:_prediction": r"`predicted_at` FROM `predictions`\.`arrival_delay` WHERE decision_id = ",
    "core/trace.py:_replay": r"SELECT \* FROM `examples`\.`arrival_delay` WHERE partition_on = @day ORDER BY",
    "core/traced_views.py:_rows_known": r"<= @decided_at AND",
    "core/trace.py:_unknown": r"STARTS_WITH\(decision_id, @prefix\)",
    "core/view_costs.py:_weigh": r"SELECT COUNT\(\*\) AS n_rows FROM `features`",
    "core/view_costs.py:ages": r"_v0\.`known_at` AS `known_at`",
    "defs/staleness.py:_measure": r"SELECT decision_id, .*\blabel_known_at < @as_of_at",  # as core/promoting.py
    "defs/examples.py:_counts": r"with decisions as \( select partition_on, count\(\*\) as n_decisions",
    "defs/examples.py:_join": r"CREATE TABLE `examples`\.`loaded_arrival_delay_",
    "defs/features/airport_network.py:feat_airport_network": r"select origin, dest, known_at from features\.feat_arr",
    "defs/features/dbt_models.py:_rows_by_day": r"select 'features\.feat_arrivals' as table_name",
    "defs/monitoring/newest_days.py:_check": r"select 'raw/flights' as name, max\(partition_on\) as newest",
    "core/monitored.py:recent_rows": r"select \* from monitoring\.performance where use_case = @use_case",
    "core/scored_rows.py:read_scored_rows": r"select e\.`decision_id`, .* p\.model_version from examples",
    "core/scoring_days.py:rows_of_days": r"select \* from predictions\.arrival_delay where",
    "core/shadow_performance.py:read_shadow_rows": r"select \* from predictions\.arrival_delay_shadow where",
    "core/scoring_days.py:stretches_in_charge": r"as decided_at from predictions\.arrival_delay where partition_on >=",
    "core/retraining_evidence.py:of": r"select partition_on, label_known_at, count\(\*\) as n_rows",
    "core/promoting.py:freeze_known": r"SELECT decision_id, .*\blabel_known_at < @as_of_at",
    "lifecycle.py:first_day_in_charge": r"min\(decided_at\) as decided_at from examples\.arrival_delay",
}
# A replay keeps its tables in DuckDB files whatever the environment, and asks BigQuery nothing.
ASKED_IN_FILES_ALONE = {"core/replays/record.py:rows_of"} | {
    f"core/replays/rivals.py:{name}" for name in ("_scored", "compared_rows")
}
# The statements of the warehouse itself and of dbt.
SENT_BY_THEMSELVES = {
    "the rows of a day": r"BEGIN TRANSACTION; DELETE FROM `raw`\.`flights` WHERE .* COMMIT TRANSACTION;",
    "the rows of a use case": r"DELETE FROM `monitoring`\.`drift` WHERE .* AND use_case = @use_case;",
    "how many rows are of the days": r"SELECT COUNT\(\*\) AS n_rows, COUNTIF",
    "a table of dbt": r"create or replace table `acme-ml-staging`\.`features`\.`feat_arrivals`",
    "a view of dbt": r"create or replace view `acme-ml-staging`\.`staging`\.`stg_flights`",
    "a test of dbt": r"having count\(\*\) > 1",
}


@dataclass(frozen=True, kw_only=True)
class Sent:
    sql: str
    parameters: Mapping[str, str]

    @property
    def words(self) -> str:
        return " ".join(self.sql.split())

    @property
    def form(self) -> str:
        """The statement with one day and one made-up name in the place of all: what there is to analyse once."""
        named = re.sub(r"_[0-9a-f]{12}\b|__dbt_tmp_?\w*", "_0", self.words)
        return re.sub(r"'\d{4}-\d{2}-\d{2}'", "'2013-01-01'", named)


@pytest.fixture(scope="module")
def sent(cloud: Cloud) -> list[Sent]:
    """What was sent while the life went on, and when a person looks at it afterwards; in order."""
    from google.cloud.bigquery import Client, QueryJob

    with cloud.environment():
        life = cloud.life
        summarise(life.lifecycle, life.use_case, LANDED, SERVED, outcome="promoted")
        assert life.lifecycle.first_day_in_charge(life.use_case, LANDED) == date(2013, 1, 12)
        newest = registry.entries(life.lifecycle.store, life.use_case.name)[-1]
        in_charge = stretches_in_charge(life.lifecycle.warehouse, life.use_case, newest, life.lifecycle.store)
        assert [str(stretch) for stretch in in_charge] == ["2013-01-14"]
        assert predicted_versions(life.lifecycle.warehouse, [life.use_case.name])[life.use_case.name]
        views = life.use_case.views(feature_views_of(Environment.current()))
        examples = life.query(
            "select * from examples.arrival_delay where partition_on = @day order by decision_id", day=SERVED.first
        )
        view_costs(
            life.lifecycle.warehouse, views, use_case=life.use_case, days=SERVED, examples=examples, seconds_per_day={}
        )
        # What a model read is looked up where a day is scored again; the life scores each day once.
        nothing = PREDICTIONS_SCHEMA.empty_table()
        assert served_rows(life.lifecycle.warehouse, life.use_case, SERVED, examples=examples, predictions=nothing)
        trace_one(life, views, examples["decision_id"][0].as_py())
        score_one(life, views)
        with Client(project=PROJECT) as client:
            jobs = [job for job in client.list_jobs() if isinstance(job, QueryJob) and not job.error_result]
        return [
            Sent(sql=job.query, parameters={p.name: p.type_ for p in job.query_parameters}) for job in reversed(jobs)
        ]


def trace_one(life: Life, views: Sequence[FeatureView], decision_id: str) -> None:
    """Trace a prediction that is made again only with its whole day, and one that does not exist."""

    def other_bits_alone(package: ModelPackage, examples: pa.Table) -> np.ndarray:
        return score(package, examples) + (1.0 if examples.num_rows == 1 else 0.0)

    def traced(of: str) -> trace.Trace:
        lineage = lineage_of(Environment.current())
        return trace.trace(
            life.lifecycle.warehouse, life.lifecycle.store, life.use_case, of, views=views, lineage=lineage
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "score", other_bits_alone)
        found = traced(decision_id)
    assert found.replay.is_identical
    assert found.replay.among > 1
    assert found.changed_views == ()
    (weather,) = (view for view in found.views if view.name == "origin_weather")
    assert [origin.n_rows for origin in weather.sources[0].origins] == [1]
    with pytest.raises(BadInput, match=f"did you mean {decision_id[:4]}"):
        traced(f"{decision_id[:-1]}x")


def score_one(life: Life, views: Sequence[FeatureView]) -> None:
    """Carry out the tests of the ML Test Score that ask the warehouse something of their own."""
    bench = Bench(
        reproduce=lambda _version: pytest.fail("nothing is to be trained"),
        test_features=dict,
        seconds_per_day={},
        libraries=lambda _name: None,
        lineage=lineage_of(Environment.current()),
        work_folder=life.home.path,
    )
    subject = Subject(
        warehouse=life.lifecycle.warehouse,
        store=life.lifecycle.store,
        use_case=life.use_case,
        day=SERVED.last,
        views=views,
        contracts=source_of(Environment.current()).contracts,
        bench=bench,
    )
    asking = {"data_4", "data_5", "data_6", "infrastructure_3", "infrastructure_6", "monitoring_5"}
    score = carry_out(subject, [test for test in RUBRIC if test.key in asking])
    # A person's review is all that is missing.
    assert {r.test.key: r.finding.evidence for r in score.results if not r.finding.points}.keys() == {"data_5"}, score


@pytest.fixture(scope="module")
def analyser(cloud: Cloud) -> GoogleAnalyser:
    """The analyser, with every table and view as it is in the end, and those that rows were loaded into."""
    from google.cloud.bigquery import Client, LoadJob

    with cloud.environment(), Client(project=PROJECT) as client:
        loads = [job for job in client.list_jobs() if isinstance(job, LoadJob)]
        tables = {
            f"{job.destination.dataset_id}.{job.destination.table_id}": {of.name: sql_type_of(of) for of in job.schema}
            for job in loads
        }
        for dataset in client.list_datasets():
            for listed in client.list_tables(dataset.dataset_id):
                table = client.get_table(listed.reference)
                name = f"{dataset.dataset_id}.{table.table_id}"
                tables[name] = {field.name: sql_type_of(field) for field in table.schema}
    return GoogleAnalyser(PROJECT, tables)


def test_google_accepts_every_statement_of_the_life(analyser: GoogleAnalyser, sent: list[Sent]):
    refused, first_of_form = list[str](), dict[str, Sent]()
    for statement in sent:
        first_of_form.setdefault(statement.form, statement)
    for statement in first_of_form.values():
        try:
            analyser.analyse(statement.sql, statement.parameters)
        except Exception as error:
            refused.append(f"{error}\n{statement.sql}")
    assert not refused, "\n\n".join(refused)


def test_every_place_that_asks_the_warehouse_was_heard(sent: list[Sent]):
    statements = {of.words for of in sent}
    assert set(asking()) == set(ASKED_BY) | ASKED_IN_FILES_ALONE
    for place, pattern in (ASKED_BY | SENT_BY_THEMSELVES).items():
        assert any(re.search(pattern, sql) for sql in statements), place


def asking() -> Iterator[str]:
    """Every function of the package that asks a warehouse for the rows of a query, or has it write them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside: dict[ast.Call, str] = {}
        # Functions come before those inside them, so that the innermost name is the one that stays.
        for function in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)):
            inside |= {call: function.name for call in ast.walk(function) if isinstance(call, ast.Call) and _asks(call)}
        yield from sorted({f"{path.relative_to(PACKAGE).as_posix()}:{name}" for name in inside.values()})


def _asks(call: ast.Call) -> bool:
    function = call.func
    is_named = isinstance(function, ast.Attribute) and function.attr in ("query", "replace_days_with_query")
    return is_named and ast.unparse(function.value).endswith("warehouse")


@pytest.mark.parametrize("use_case", load_use_cases(), ids=lambda use_case: use_case.name)
def test_google_accepts_what_is_asked_for_every_use_case(analyser: GoogleAnalyser, use_case: UseCase):
    declared: Mapping[str, FeatureView] = feature_views_of(Environment.current())
    days = {"first_day": "DATE", "last_day": "DATE"}
    views = use_case.views(declared)
    joined = examples_query(use_case, views, dialect="bigquery")
    assert analyser.analyse(bigquery_sql.create_as(use_case.examples_table, joined), days) == 1
    labelled = examples_sql(use_case, use_case.inputs(declared), "bigquery")
    analyser.analyse(labelled, {"first_day": "DATE", "until_day": "DATE", "as_of_at": "TIMESTAMP"})
    for view in views:
        analyser.analyse(newest_rows_query(use_case, view, dialect="bigquery"), days)


def test_google_accepts_what_is_counted_of_columns_of_every_type():
    # One is called as its table is, which BigQuery would take for a whole row.
    numbers = {"delay": "FLOAT64", "n_flights": "INT64", "is_holiday": "BOOL"}
    categories = {"carrier": "STRING", "weekday": "INT64"}
    rows = {name: [1.0, None] for name in numbers} | {name: ["1", None] for name in categories}
    inputs = [Feature(name=name, kind="numeric" if name in numbers else "categorical", view="v") for name in rows]
    bins = build_reference(pa.table({"partition_on": [LANDED.first] * 2, **rows}), inputs, [0.5, 0.5]).features
    types = {"partition_on": "DATE", **numbers, **categories}
    google = GoogleAnalyser(PROJECT, {"examples.delay": types})
    sql, days = Sql(dialect="bigquery"), {"first_day": "DATE", "last_day": "DATE"}
    assert google.analyse(numbers_query(sql, "examples.delay", bins[:3], types), days) == 1
    assert google.analyse(categories_query(sql, "examples.delay", bins[3:]), days) == 1
    assert google.analyse(categories_query(sql, "examples.delay", bins[3:4]), days) == 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT origin FROM raw.flights WHERE flight = @use_case", "No matching signature"),
        ("SELECT max_by(origin, dest) FROM raw.flights", "Function not found: max_by"),
        ("SELECT gate FROM raw.flights", "Unrecognized name: gate"),
        ("BEGIN TRANSACTION; DELETE FROM raw.flights; COMMIT TRANSACTION;", "must have a WHERE clause"),
        ("INSERT INTO raw.flights (origin) SELECT flight FROM raw.flights", "which has type STRING"),
        ("CREATE TABLE raw.x AS SELECT 1 AS n, 2 AS n", "columns with duplicate name n"),
    ],
)
def test_google_refuses_what_is_wrong(analyser: GoogleAnalyser, sql: str, message: str):
    with pytest.raises(Exception, match=message):
        analyser.analyse(sql, {"use_case": "STRING"})
