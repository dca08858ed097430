"""The score itself: all 28 tests carried out, added up by section, the smallest sum taken, and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.errors import MlAssetsError
from ml_assets.core.ml_test_score import data, infrastructure, model, monitoring
from ml_assets.core.ml_test_score.findings import SECTIONS, Finding, RubricTest, Section, readiness
from ml_assets.core.ml_test_score.subject import Subject
from ml_assets.core.monitored import recent_rows
from ml_assets.core.ports import Warehouse
from ml_assets.core.spec import UseCase

TABLE = "monitoring.ml_test_score"
SCORE_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "section": pa.string(),
        "number": pa.int64(),
        "test": pa.string(),
        "outcome": pa.string(),
        "points": pa.float64(),
        "evidence": pa.string(),
    }
)
RUBRIC: tuple[RubricTest[Subject], ...] = (*data.TESTS, *model.TESTS, *infrastructure.TESTS, *monitoring.TESTS)
_HISTORY = timedelta(days=366)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One test of the rubric and what it found."""

    test: RubricTest[Subject]
    finding: Finding


@dataclass(frozen=True, kw_only=True)
class MlTestScore:
    """What the 28 tests found of a use case at the end of a day, in the order of the paper."""

    use_case: str
    day: date
    results: tuple[Result, ...]

    @property
    def sums(self) -> Mapping[Section, float]:
        """The points of each section, of 7 each."""
        return {section: sum(r.finding.points for r in self.of(section)) for section in SECTIONS}

    @property
    def score(self) -> float:
        """The smallest of the four sums: a chain is as strong as its weakest link."""
        return min(self.sums.values())

    @property
    def readiness(self) -> str:
        """What the paper calls a system with this score."""
        return readiness(self.score)

    def of(self, section: Section) -> Sequence[Result]:
        """Return the results of a section, in order."""
        return [result for result in self.results if result.test.section == section]


def carry_out(subject: Subject, tests: Sequence[RubricTest[Subject]] = RUBRIC) -> MlTestScore:
    """Carry out these tests, or all.

    A test that cannot be carried out (a package is damaged, a table is absent) has no point, and its evidence is why.
    """
    return MlTestScore(
        use_case=subject.use_case.name,
        day=subject.day,
        results=tuple(Result(test=test, finding=_finding(test, subject)) for test in tests),
    )


def write_score(subject: Subject) -> MlTestScore:
    """Carry out all tests and replace the rows of the day in ``monitoring.ml_test_score``."""
    score = carry_out(subject)
    rows = [
        {
            "use_case": score.use_case,
            "partition_on": score.day,
            "section": result.test.section,
            "number": result.test.number,
            "test": result.test.name,
            "outcome": result.finding.outcome,
            "points": result.finding.points,
            "evidence": result.finding.evidence,
        }
        for result in score.results
    ]
    subject.warehouse.replace_days(
        {TABLE: pa.Table.from_pylist(rows, schema=SCORE_SCHEMA)},
        DayRange(first=score.day, last=score.day),
        use_case=score.use_case,
    )
    return score


def points_before(warehouse: Warehouse, use_case: UseCase, day: date) -> Mapping[str, float]:
    """Return the points of each test when the use case was last scored before a day, by key; empty without that."""
    newest = _newest_rows(warehouse, use_case, day - timedelta(days=1))
    return {_key(row): row["points"] for row in newest}


def lost_when_last_scored(warehouse: Warehouse, use_case: UseCase, day: date) -> Sequence[str]:
    """Return each test that lost points when the use case was last scored, up to a day, with its evidence."""
    newest = _newest_rows(warehouse, use_case, day)
    before = points_before(warehouse, use_case, newest[0]["partition_on"]) if newest else {}
    worse = [row for row in newest if row["points"] < before.get(_key(row), 0.0)]
    return [f"{row['test']}: {row['evidence']}" for row in worse]


def _newest_rows(warehouse: Warehouse, use_case: UseCase, last: date) -> list[dict[str, Any]]:
    if warehouse.columns(TABLE) is None:
        return []
    rows = recent_rows(warehouse, TABLE, use_case, last, since=last - _HISTORY)
    if not rows.num_rows:
        return []
    return rows.filter(pc.field("partition_on") == pa.scalar(rows["partition_on"][-1].as_py())).to_pylist()


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['section']}_{row['number']}"


def lost(score: MlTestScore, before: Mapping[str, float]) -> Sequence[Result]:
    """Return the results with fewer points than before."""
    return [r for r in score.results if r.finding.points < before.get(r.test.key, 0.0)]


def _finding(test: RubricTest[Subject], subject: Subject) -> Finding:
    try:
        return test.check(subject)
    except MlAssetsError as error:
        return Finding(outcome="none", evidence=f"it could not be carried out: {error}")
