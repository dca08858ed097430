"""Stage features: dbt models and, under the same contract, features that SQL cannot compute."""
