"""The folder in which refused commands are tried, made once for all tests of this package."""

import pytest

from tests.support.refusals import Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))
