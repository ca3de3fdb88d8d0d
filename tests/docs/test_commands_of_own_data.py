"""The other pages: every command runs, on reviews of the reader's own."""

import re

import pytest

from tests.docs.pages import ALL, NOT_RUN, OF_OWN_DATA, PAGES, to_type

pytestmark = [pytest.mark.docs, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("command", to_type(OF_OWN_DATA), ids=str)
def test_command_runs_as_the_page_says(reader, command):
    reader.types(command)


def test_every_reason_not_to_run_a_command_stands_for_one():
    unused = {pattern for pattern in NOT_RUN if not any(re.search(pattern, one.text) for one in ALL)}
    assert not unused
    assert len(to_type(PAGES)) > 50
