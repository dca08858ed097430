"""Stage monitoring: drift, quality, a report for people, and the decision whether to train again."""
