from ml_assets.core.trainers.segments import SegmentOutcome
from ml_assets.defs.models import segment_facts


def test_the_candidates_metadata_tell_of_each_segment_which_model_answers_and_why():
    own = SegmentOutcome(
        value="JFK", n_train=9000, n_validation=700, has_own_model=True, parent_loss=0.5, own_loss=0.4, margin=0.02
    )
    small = SegmentOutcome(value="LGA", n_train=9, n_validation=2, has_own_model=False, why_parent="9 train rows")
    facts = segment_facts((own, small))
    assert (facts["n_segments"], facts["n_segments_with_own_model"]) == (2, 1)
    of_own, of_small = (record.data for record in facts["segments"].records)
    assert (of_own["value"], of_own["own_loss"], of_own["why_parent"]) == ("JFK", 0.4, "")
    assert (of_small["value"], of_small["own_loss"], of_small["why_parent"]) == ("LGA", "", "9 train rows")
    assert segment_facts(()) == {}
