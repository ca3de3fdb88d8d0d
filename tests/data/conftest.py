"""Every test here prepares datasets; those that look at the report's charts ask for ``real_charts``."""

import pytest


@pytest.fixture(autouse=True)
def charts_are_sketched(sketched_charts):
    pass
