"""How many minutes will this flight be in the air? Asked two hours before its scheduled departure."""

from datetime import timedelta

from ml_assets.core.spec import Decisions, Label, PromotionRule, RetrainingRule, UseCase

USE_CASE = UseCase(
    name="air_time",
    question="How many minutes will this flight be in the air?",
    owners=("team:flight-operations",),
    task="regression",
    decisions=Decisions(
        table="intermediate.int_scheduled_flights",
        event_at="scheduled_departure_at",
        lead_time=timedelta(hours=2),
    ),
    label=Label(table="labels.label_air_time", unit="minutes"),
    features=("flight_schedule", "origin_weather", "route_air_times", "carrier_route_air_times"),
    trainer="sklearn",
    hyperparameters={"estimator": "lightgbm"},
    # What a planner would take: the mean of the route's last four weeks, and the distance for a route without one.
    baseline_features=("distance_miles", "route_air_times_mean_minutes_28d"),
    slices=("origin", "carrier", "month"),
    # Measured as of 2014: 1 % of the RMSE, five seconds, is lost within a week, 2 % at 14 days (5 to 47 by the limits);
    # see docs/staleness.md. A judgement: ten seconds of a forecast of hours are worth a training a fortnight, not more.
    retraining=RetrainingRule(maximum_age_days=14, staleness_tolerance=0.02),
    # A judgement: the distance alone explains 0.98 of the variance, so a model below 0.95 is broken.
    promotion=PromotionRule(minimum_r2=0.95),
)
