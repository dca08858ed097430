"""Will this flight arrive 15 minutes late or more? Asked two hours before its scheduled departure."""

from datetime import timedelta

from ml_assets.core.spec import Decisions, Label, PromotionRule, RetrainingRule, UseCase

USE_CASE = UseCase(
    name="arrival_delay",
    question="Will this flight arrive 15 minutes late or more?",
    owners=("team:flight-operations",),
    task="binary_classification",
    decisions=Decisions(
        table="intermediate.int_scheduled_flights",
        event_at="scheduled_departure_at",
        lead_time=timedelta(hours=2),
    ),
    label=Label(table="labels.label_arrival_delay"),
    features=(
        "flight_schedule",
        "origin_weather",
        "origin_departures",
        "origin_carrier_departures",
        "carrier_departures",
        "route_departures",
        "origin_planned_departures",
        "origin_cancellations",
        "destination_arrivals",
        "carrier_arrivals",
        "origin_carrier_arrivals",
        "flight_number_arrivals",
        "route_arrivals",
        "carrier_destination_arrivals",
        "airport_network",
    ),
    baseline_features=(
        "scheduled_departure_minute_of_day",
        "n_planned_departures_origin",
        "visibility_miles",
        "origin_departures_late_share_3h",
        "origin_carrier_departures_mean_delay_minutes_24h",
        "destination_arrivals_mean_delay_minutes_4h",
        "flight_number_arrivals_late_share_28d",
    ),
    # Weekly models of one recipe differ by less than the noise of three weeks, and the older knows less of the season.
    promotion=PromotionRule(against_champion="not_worse"),
    # Measured as of 2014: 1 % of the loss is lost at 108 days of age (44 to 112 by the limits); see docs/staleness.md.
    retraining=RetrainingRule(maximum_age_days=105),
    slices=("origin", "carrier", "scheduled_departure_local_hour", "scheduled_weekday", "month"),
)
