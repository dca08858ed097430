"""The examples in the yml files: they run here, not in the daily build."""


def test_every_example_in_the_yml_files_holds(dbt, warehouse):
    result = dbt(warehouse, "test", "2013-01-01", "2013-01-01", "--select", "test_type:unit")
    assert {node.node.name: node.status for node in result.result.results} == {
        "a_change_compares_with_exactly_three_hours_before_or_is_null": "pass",
        "a_departure_is_the_scheduled_hour_plus_its_minute": "pass",
        "only_a_flight_that_reached_its_destination_has_arrived": "pass",
        "a_departure_is_known_when_it_leaves": "pass",
        "only_what_was_cancelled_counts_from_when_it_was_known": "pass",
        "a_plan_counts_at_the_scheduled_departure": "pass",
        "a_flight_has_a_label_or_the_reason_why_not": "pass",
        "a_flight_that_arrived_has_its_minutes_in_the_air": "pass",
        "an_airport_the_source_leaves_out_gets_its_zone_and_one_it_has_is_not_doubled": "pass",
        "an_outcome_is_known_at_its_schedule_plus_its_delay": "pass",
        "congestion_counts_the_flights_planned_in_the_same_clock_hour": "pass",
        "only_a_flight_that_never_left_was_cancelled": "pass",
        "whether_a_flight_flew_is_known_when_it_leaves_or_counts_as_cancelled": "pass",
        "the_planned_arrival_is_the_first_time_the_destinations_clock_shows_it": "pass",
    }


def test_the_daily_build_leaves_the_examples_out(dbt, warehouse):
    result = dbt(warehouse, "build", "2013-02-08", "2013-02-08", "--exclude-resource-type", "unit_test")
    assert {str(node.node.resource_type) for node in result.result.results} == {"model", "test"}
