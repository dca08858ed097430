"""Every SQLite file that SQLAlchemy opens once this is imported is written without waiting for the disk.

Dagster commits each event by itself and closes the file after it, and SQLite then waits for the disk three times: 15 ms
an event, a third of a run of the graph. What is written is in the kernel's hands without that, and outlives a process
that is killed; it would not outlive the machine, but a test does not either.
"""

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _wait_for_no_disk(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF").close()
