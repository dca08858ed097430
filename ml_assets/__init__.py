"""The whole life of a machine-learned model as one Dagster asset graph.

    raw -> features -> examples -> training set -> candidate -> champion -> predictions -> monitoring
     ^                                                                                        |
     +------------------ automation: schedules, sensors, retraining decisions ----------------+

Where each part lives:

- ``definitions``  the one assembly point that Dagster loads
- ``resources``    the one place where local and cloud are swapped
- ``calendar``     the daily partitions, and the arithmetic of local days
- ``defs``         the assets, one file per lifecycle stage; thin
- ``use_cases``    one file per question a model answers
- ``core``         the library that does the work; knows neither Dagster nor any cloud
- ``backends``     one file per technology, each fulfilling a port of ``core``
- ``cli``          the ``ml-assets`` command: run, replay, rollback
"""
