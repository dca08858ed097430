"""A small world to report on: three weeks of a use case in every monitoring table, with names a test may choose."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa

from ml_assets.core.evaluation import Metrics
from ml_assets.core.feature_views import Feature
from ml_assets.core.performance import measure_performance
from ml_assets.core.reference import Reference, build_reference
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports.monitored_rows import (
    Alarm,
    Decided,
    Estimate,
    Fault,
    Monitored,
    SkewRow,
    SliceRow,
)
from ml_assets.core.reports.monitoring import monitoring_report
from ml_assets.core.reports.overview import Overview, overview_of, overview_page

FIRST_DAY, LAST_DAY = date(2013, 6, 15), date(2013, 7, 5)
DAYS = tuple(FIRST_DAY + timedelta(days=i) for i in range((LAST_DAY - FIRST_DAY).days + 1))
HOLDOUT = Metrics(
    roc_auc=0.72, pr_auc=0.48, log_loss=0.45, brier=0.15, calibration_error=0.02, n_rows=1000, positive_share=0.25
)


class Page(HTMLParser):
    """The elements, attributes and text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = self._spaced = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        shown = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text += shown
        self._spaced += shown

    def handle_endtag(self, tag: str) -> None:
        self._spaced += "" if tag in ("b", "strong", "span", "small") else " "

    @property
    def words(self) -> str:
        """The text with one space between words, and between what stands in two cells."""
        return " ".join(self._spaced.split())

    def of(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def entry(sequence: int, day: date, **changes: object) -> LedgerEntry:
    fields: dict[str, object] = {
        "sequence": sequence,
        "action": "promote",
        "use_case": "arrival_delay",
        "version": f"{day}-3fa2c1d0beef",
        "package_hash": "9f" * 32,
        "effective_from": day,
        "as_of": day,
        "reason": "passed every gate",
        "recorded_at": datetime(2013, 7, 1, tzinfo=UTC),
        "recorded_by": "run 1",
    }
    return LedgerEntry(**(fields | changes))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class Names:
    """Every text of the world that is data: any of them may hold what an attacker likes."""

    use_case: str = "arrival_delay"
    question: str = "Will this flight arrive 15 minutes late or more?"
    feature: str = "wind_speed_mph"
    view: str = "origin_weather"
    category: str = "AA"
    subject: str = "carrier"
    explanation: str = "67 % of the day's rows are in categories never seen in training"
    reason: str = "drift: carrier"
    run: str = "run 1"
    unit: str = "minutes"

    @classmethod
    def all(cls, text: str) -> "Names":
        return cls(**dict.fromkeys(cls.__dataclass_fields__, text))


def drift_rows(
    reference: Reference, rows: pa.Table, *, day: date, version: str, names: Names
) -> list[dict[str, object]]:
    """The rows of monitoring.drift of a day; from 4 July on every category has drifted."""
    found = list[dict[str, object]]()
    for bins in reference.all_bins:
        counts = np.bincount(bins.index(rows[bins.feature]), minlength=len(bins.shares))
        moved = float(np.abs(counts / rows.num_rows - np.asarray(bins.shares)).sum() / 2)
        is_drifted = day >= date(2013, 7, 4) and bins.kind == "categorical"
        found.append(
            {
                "partition_on": day,
                "model_version": version,
                "feature": bins.feature,
                "view": "" if bins.kind == "prediction" else names.view,
                "kind": bins.kind,
                "n_rows": rows.num_rows,
                "mean": 0.28 if bins.kind == "prediction" else None,
                "psi": 0.03,
                "missing_share": 0.0,
                "reference_missing_share": 0.0,
                "bin_counts": str(counts.tolist()),
                "p_value": 0.0002 if is_drifted else 0.4,
                "moved_share": 0.42 if is_drifted else moved,
                "is_drifted": is_drifted,
                "severity": "severe" if is_drifted else "",
                "explanation": names.explanation,
            }
        )
    return found


class World:
    """Two features, a prediction, two models, and one of everything that can be wrong."""

    def __init__(self, names: Names | None = None) -> None:
        self.names = names or Names()
        generator = np.random.default_rng(4)
        inputs = [
            Feature(name=self.names.feature, kind="numeric", view=self.names.view),
            Feature(name="carrier_of_flight", kind="categorical", view=self.names.view),
        ]
        june = self._rows(generator, 3000)
        june = june.append_column("partition_on", pa.array([date(2013, 6, 1 + i % 10) for i in range(3000)]))
        self.reference: Reference = build_reference(june, inputs, june.column("prediction").to_numpy())
        self.ledger = [
            entry(1, date(2013, 6, 14), recorded_by=self.names.run, reason=self.names.reason),
            entry(2, date(2013, 7, 1), recorded_by=self.names.run, reason=self.names.reason),
        ]
        self.monitored = self._monitored(generator)

    def version_on(self, day: date) -> str:
        return self.ledger[0 if day < date(2013, 7, 1) else 1].version

    def day_page(self, *, day: date = LAST_DAY, links: dict[str, str] | None = None, **changes: object) -> str:
        return monitoring_report(
            use_case=self.names.use_case,
            day=day,
            monitored=replace(self.monitored, **changes),  # pyright: ignore[reportArgumentType]
            champion=self.ledger[-1],
            changes=self.ledger,
            holdout=HOLDOUT,
            reference=self.reference,
            links=links or {},
            question=self.names.question,
        )

    def overview(self, *, last: date = LAST_DAY, **changes: object) -> Overview:
        return overview_of(
            use_case=self.names.use_case,
            last=last,
            monitored=replace(self.monitored, **changes),  # pyright: ignore[reportArgumentType]
            ledger=self.ledger,
            holdout=HOLDOUT,
        )

    def overview_page(self, **changes: object) -> str:
        return overview_page(self.overview(**changes), links={}, question=self.names.question)

    def _rows(self, generator: np.random.Generator, n: int) -> pa.Table:
        predictions = generator.beta(2, 5, n)
        labels = [None if i % 50 == 0 else bool(generator.random() < p) for i, p in enumerate(predictions)]
        return pa.table(
            {
                self.names.feature: generator.gamma(4, 3, n),
                "carrier_of_flight": [self.names.category if i % 3 else "UA" for i in range(n)],
                "prediction": predictions,
                "label": pa.array(labels, pa.bool_()),
                "no_label_reason": pa.array(["cancelled" if y is None else None for y in labels], pa.string()),
            }
        )

    def _monitored(self, generator: np.random.Generator) -> Monitored:
        names, drift, performance = self.names, list[dict[str, object]](), list[pa.Table]()
        for day in DAYS:
            rows = self._rows(generator, 300)
            version = self.version_on(day)
            performance.append(measure_performance(rows, use_case="arrival_delay", day=day, model_version=version))
            drift += drift_rows(self.reference, rows, day=day, version=version, names=names)
        table = pa.Table.from_pylist(drift)
        return Monitored(
            drift=table,
            drift_of_days=table,
            performance=pa.concat_tables(performance),
            shadows=pa.Table.from_pylist(
                [
                    {"partition_on": day, "role": role, "other_roc_auc": 0.66, "other_log_loss": 0.5}
                    for day in DAYS
                    for role in ("previous_1", "previous_2", "baseline:base_rate", "baseline:logistic")
                ]
            ),
            alarms=[
                Alarm(
                    partition_on=day,
                    kind=kind,
                    subject=names.subject,
                    severity=severity,
                    explanation=names.explanation,
                    since=since,
                    incident=f"{kind}:{names.subject}:{since}",
                )
                for kind, severity, since, last in (
                    ("drift", "severe", date(2013, 7, 4), LAST_DAY),
                    ("quality", "warning", date(2013, 6, 20), date(2013, 6, 23)),
                )
                for day in DAYS
                if since <= day <= last
            ],
            faults=[
                Fault(
                    partition_on=LAST_DAY,
                    table_name="raw.weather",
                    check_name="nulls",
                    column_name=names.subject,
                    severity="severe",
                    is_blocking=True,
                    explanation=names.explanation,
                )
            ],
            skew=[
                SkewRow(
                    partition_on=LAST_DAY,
                    view=names.view,
                    feature=names.feature,
                    n_compared=50,
                    n_different=2,
                    decision_id=names.run,
                    served=names.category,
                    recomputed=names.category,
                    explanation=names.explanation,
                )
            ],
            slices=[
                SliceRow(
                    partition_on=LAST_DAY,
                    slice=names.subject,
                    value=names.category,
                    n_decisions=400,
                    n_labelled=400,
                    positive_share=0.5,
                    mean_prediction=0.3,
                    log_loss=0.7,
                )
            ],
            estimates=[
                Estimate(
                    partition_on=day,
                    metric="roc_auc",
                    estimated=0.7,
                    low=0.65,
                    high=0.75,
                    realised=0.72 if day < LAST_DAY else None,
                    error=-0.02 if day < LAST_DAY else None,
                )
                for day in DAYS
            ],
            decisions=[
                Decided(
                    partition_on=day,
                    decision="retrain" if day == LAST_DAY else "wait",
                    reason=names.reason,
                    as_of=day + timedelta(days=1),
                    evidence=f'{{"model_age_days": 5, "alarm": {_json(names.explanation)}}}',
                )
                for day in DAYS
            ],
        )


def _json(text: str) -> str:
    import json

    return json.dumps(text)
