"""The code location of the unattended days: the whole graph with the small use case of the tests alone."""

from dataclasses import replace

from ml_assets import definitions
from ml_assets.core.spec import RetrainingRule
from tests.conftest import only_use_case, small_use_case

# Its champion is of 2013-01-14, and grows too old within these days.
USE_CASE = replace(
    small_use_case(),
    retraining=RetrainingRule(cool_down_days=2, maximum_age_days=3, minimum_new_examples=1, minimum_new_share=0.0),
)
with only_use_case(USE_CASE):
    defs = definitions.defs()
