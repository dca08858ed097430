"""The report on the feature views of a use case: what each adds to the model, what it costs, how fresh it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_assets.core.ablation_records import Ablation, ViewGain
from ml_assets.core.reports import insight_charts
from ml_assets.core.reports.page import checked_links, draw, render
from ml_assets.core.view_costs import ViewCost


def ablation_report(
    ablation: Ablation, costs: Sequence[ViewCost], *, question: str, loss: str, links: Mapping[str, str] | None = None
) -> str:
    """Write the report as one self-contained HTML page; the same input gives the same bytes.

    ``loss`` is what people call the loss of the task. Raises BadInput for a link that is no address.
    """
    by_view = {cost.view: cost for cost in costs}
    return render(
        "ablation.html",
        use_case=ablation.use_case,
        question=question,
        ablation=ablation,
        loss=loss,
        chart=draw(
            "Gain of each view",
            insight_charts.view_gains(ablation.views),
            "Validation loss without the view, less that with all views.",
        ),
        rows=[_row(gain, by_view[gain.view]) for gain in ablation.views],
        links=checked_links(links or {}),
    )


@dataclass(frozen=True, kw_only=True)
class ViewRow:
    """One view as it is printed."""

    view: str
    adds: str
    verdict: str
    importance: str
    n_columns: int
    null_share: float
    age: str
    max_age: str
    stale_share: float
    table: str
    rows_per_day: int
    kilobytes_per_day: int
    seconds_per_day: float | None


def _row(gain: ViewGain, cost: ViewCost) -> ViewRow:
    return ViewRow(
        view=gain.view,
        adds=f"{gain.gain:+.4f} \N{PLUS-MINUS SIGN} {gain.margin:.4f}",
        verdict=gain.verdict,
        importance=f"{gain.importance.value:+.4f}",
        n_columns=gain.n_columns,
        null_share=cost.null_share,
        age=f"{duration(cost.age_p50_hours)}, {duration(cost.age_p95_hours)}",
        max_age=duration(cost.max_age_hours),
        stale_share=cost.stale_share,
        table=cost.table.removeprefix("features."),
        rows_per_day=round(cost.rows_per_day),
        kilobytes_per_day=round(cost.bytes_per_day / 1000),
        seconds_per_day=cost.seconds_per_day,
    )


def duration(hours: float | None) -> str:
    """Write a number of hours for people: minutes below two hours, days above two; a dash for none.

    >>> duration(0.25), duration(3.5), duration(72), duration(None)
    ('15 min', '3.5 h', '3 d', '—')
    """
    if hours is None:
        return "\N{EM DASH}"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.3g} h" if hours <= 48 else f"{hours / 24:.3g} d"
