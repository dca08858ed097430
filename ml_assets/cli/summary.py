"""What a run came to, as a table of words a person understands."""

import pyarrow as pa
from rich.table import Table

from ml_assets.cli.terminal import console
from ml_assets.core import registry
from ml_assets.core.package import load_package
from ml_assets.core.performance import pool_histograms
from ml_assets.core.ports import DayRange
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of
from ml_assets.lifecycle import Lifecycle, TrainingOutcome


def summarise(
    life: Lifecycle, use_case: UseCase, landed: DayRange, served: DayRange, *, outcome: TrainingOutcome
) -> None:
    """Print what the run came to, in words a person understands."""
    bounds = {"first": landed.first, "last": landed.last}
    rows = life.warehouse.query(
        """
        with quarantined as (
            from raw.flights_quarantine union all from raw.schedules_quarantine union all from raw.weather_quarantine
        )
        select (select count(*) from raw.flights where partition_on between $first and $last) as n_flights,
               (select count(*) from raw.weather where partition_on between $first and $last) as n_weather,
               (select count(*) from quarantined where partition_on between $first and $last) as n_quarantined
        """,
        bounds,
    ).to_pylist()[0]
    served_bounds = {"first": served.first, "last": served.last, "use_case": use_case.name}
    quality = life.warehouse.query(
        """
        select count(*) as n_days, sum(n_decisions) as n_decisions, sum(n_unlabelled) as n_unlabelled,
               list(score_histogram) filter (score_histogram is not null) as histograms,
               sqrt(sum(n_labelled * rmse * rmse) / sum(n_labelled) filter (rmse is not null)) as rmse
        from monitoring.performance
        where use_case = $use_case and partition_on between $first and $last
        """,
        served_bounds,
    ).to_pylist()[0]
    histograms = pa.table({"score_histogram": pa.array(quality["histograms"] or [], pa.string())})
    meaning, unit = meaning_of(use_case.task), use_case.label.unit
    proved = quality["rmse"] if meaning.daily.name == "rmse" else pool_histograms(histograms).roc_auc
    drift = life.warehouse.query(
        """
        select count(*) filter (is_drifted and kind <> 'prediction') as n_drifted,
               count(*) filter (kind <> 'prediction') as n_measured,
               count(*) filter (is_drifted and kind = 'prediction') as n_prediction_days,
               count(distinct feature) filter (is_drifted and kind <> 'prediction') as n_features,
               mode(feature) filter (is_drifted and kind <> 'prediction') as most_often
        from monitoring.drift
        where use_case = $use_case and partition_on between $first and $last
        """,
        served_bounds,
    ).to_pylist()[0]
    entry = registry.champion_required(life.store, use_case.name, served.last)
    metrics = load_package(life.store, use_case.name, entry.version).metrics
    table = Table(show_header=False, title=f"{use_case.name}: {use_case.question}", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "landed",
        f"{rows['n_flights']:,} flights and {rows['n_weather']:,} weather hours of {landed}; "
        f"{rows['n_quarantined']} rows quarantined",
    )
    words = {
        "promoted": "promoted" if entry.as_of == served.first else "of a later training than this one",
        "refused": "kept; the new candidate was refused",
        "waits": "kept; the new candidate waits for ml-assets approve",
    }
    table.add_row("champion", f"{entry.version} ({words[outcome]})")
    table.add_row(
        "quality on the holdout",
        "\n".join(
            [
                meaning.sentence(metrics.holdout, unit),
                *(
                    f"{words.removeprefix('the ')}: {meaning.sentence(metrics.baselines[name], unit)}"
                    for name, words in reversed(meaning.baseline_words.items())
                ),
            ]
        ),
    )
    table.add_row(
        "predicted",
        f"{quality['n_decisions']:,} flights on {quality['n_days']} days ({served}); "
        f"{meaning.daily.words} {'-' if proved is None else meaning.daily.write(proved, unit)}; "
        f"{quality['n_unlabelled']:,} never get a label",
    )
    often = f", most often {drift['most_often']}" if drift["most_often"] else ""
    table.add_row(
        "drift",
        f"{drift['n_drifted']} of {drift['n_measured']:,} feature-days beyond their limits "
        f"({drift['n_features']} features{often}),\n"
        f"the prediction on {drift['n_prediction_days']} of {quality['n_days']} days",
    )
    report = f"reports/{use_case.name}/{served.last}.html"
    table.add_row("report", life.store.address(report))
    table.add_row("next", "make ui, then http://127.0.0.1:3000")
    console.print(table)
