"""The assets, checks, schedules and sensors: one file per lifecycle stage, each thin over ``core``."""
