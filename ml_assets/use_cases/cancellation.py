"""Will this flight be cancelled? Asked at 18:00 in New York on the day before."""

from datetime import time

from ml_assets.core.spec import Decisions, Label, SplitRule, UseCase

USE_CASE = UseCase(
    name="cancellation",
    question="Will this flight be cancelled?",
    owners=("team:flight-operations",),
    task="binary_classification",
    decisions=Decisions(
        table="intermediate.int_scheduled_flights",
        event_at="scheduled_departure_at",
        decided_at_local=time(18),
        days_before=1,
    ),
    label=Label(table="labels.label_cancellation"),
    features=(
        "flight_schedule",
        "origin_weather",
        "origin_departures",
        "carrier_arrivals",
        "destination_arrivals",
        "origin_outcomes",
        "carrier_outcomes",
        "route_outcomes",
        "origin_carrier_outcomes",
    ),
    trainer="sklearn",
    hyperparameters={"estimator": "hist_gradient_boosting"},
    baseline_features=(
        "scheduled_departure_minute_of_day",
        "distance_miles",
        "origin_outcomes_cancelled_share_24h",
        "route_outcomes_cancelled_share_28d",
    ),
    slices=("origin", "month"),
    split=SplitRule(gap_days=2),
)
