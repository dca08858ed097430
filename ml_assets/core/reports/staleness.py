"""The report on what the age of a model costs: the measured curve beside what its use case declares."""

from ml_assets.core.reports.charts import INK, MAIN, MUTED, OTHER, QUIET, Spec, styled
from ml_assets.core.reports.page import draw, render
from ml_assets.core.retraining import judge_declared_age
from ml_assets.core.spec import RetrainingRule
from ml_assets.core.staleness_curves import StalenessCurve

__all__ = ["staleness_chart", "staleness_report"]


def staleness_report(curve: StalenessCurve, rule: RetrainingRule, *, question: str) -> str:
    """Write the report as one self-contained HTML page; the same input gives the same bytes."""
    verdict = judge_declared_age(curve, rule)
    return render(
        "staleness.html",
        use_case=curve.use_case,
        question=question,
        curve=curve,
        rule=rule,
        loss=curve.loss.replace("_", " "),
        headline=curve.headline.replace("_", " "),
        is_held=not verdict.is_alarming,
        verdict="; ".join(verdict.reasons),
        chart=draw(
            "What age costs",
            staleness_chart(curve, rule),
            "Loss of a model of this age above that of a fresh one on the same days. Line and band: the fit, and where "
            "it lies 95 times in 100; dots: as measured.",
        ),
        links={},
    )


def staleness_chart(curve: StalenessCurve, rule: RetrainingRule) -> Spec:
    """Draw the fitted cost over the age in weeks with its band, what was measured, and the tolerance."""
    import altair as alt

    origin = {"weeks": 0, "fitted": 0.0, "low": 0.0, "high": 0.0}
    rows = [
        {"weeks": a.weeks, "fitted": a.fitted, "low": a.fitted_low, "high": a.fitted_high, "cost": a.cost}
        for a in curve.ages
    ]
    declared = rule.maximum_age_days / 7
    axis = alt.Axis(format="+.1%", tickCount=5)
    x = alt.X(
        "weeks:Q",
        title="Age of the model, weeks",
        axis=alt.Axis(values=[0, *(age.weeks for age in curve.ages)], grid=False),
        scale=alt.Scale(domain=[0, max(curve.ages[-1].weeks, declared)]),
    )
    fit, measured = alt.Chart(alt.NamedData("fit")), alt.Chart(alt.NamedData("measured"))
    level, limit = alt.Chart(alt.NamedData("tolerance")), alt.Chart(alt.NamedData("declared"))
    title = f"Increase of the {curve.loss.replace('_', ' ')}"
    layers: list[alt.Chart] = [
        fit.mark_area(color=QUIET, opacity=0.35).encode(x=x, y=alt.Y("low:Q", title=title, axis=axis), y2="high:Q"),
        fit.mark_line(color=MAIN, strokeWidth=2).encode(x=x, y=alt.Y("fitted:Q", title=title)),
        measured.mark_point(color=INK, filled=True, size=32, opacity=1).encode(x=x, y=alt.Y("cost:Q", title=title)),
        level.mark_rule(color=MUTED, strokeDash=[4, 3], strokeWidth=1.5).encode(y="value:Q"),
        level.mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=MUTED).encode(
            x=alt.value(370), y="value:Q", text="label:N"
        ),
        limit.mark_rule(color=OTHER, strokeDash=[4, 3], strokeWidth=1.5).encode(x="value:Q"),
        limit.mark_text(
            align="left" if declared < 8 else "right",
            baseline="bottom",
            dx=4 if declared < 8 else -4,
            fontSize=11,
            color=OTHER,
        ).encode(x="value:Q", y=alt.value(14), text="label:N"),
    ]
    return styled(
        alt.layer(*layers),
        fit=[origin, *rows],
        measured=rows,
        tolerance=[{"value": rule.staleness_tolerance, "label": f"tolerated {rule.staleness_tolerance:.1%}"}],
        declared=[{"value": declared, "label": f"declared {rule.maximum_age_days} days"}],
    )
