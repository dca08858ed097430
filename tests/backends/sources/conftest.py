"""Landing folders of every kind for the tests of file stores and of the source on them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.landing import Place, gcs_place, local_place, s3_place, webhdfs_place
from tests.servers.webhdfs import webhdfs_server

KINDS = ("local", "s3", "gcs", "webhdfs")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty landing folder of each kind."""
    folder = tmp_path.name.lower().replace("_", "-")
    with ExitStack() as stack:
        if request.param == "local":
            yield local_place(tmp_path / "landing")
        elif request.param == "s3":
            yield stack.enter_context(s3_place(request.getfixturevalue("s3"), folder))
        elif request.param == "gcs":
            yield stack.enter_context(gcs_place(request.getfixturevalue("gcs"), folder))
        else:
            yield stack.enter_context(webhdfs_place(stack.enter_context(webhdfs_server()), folder))
