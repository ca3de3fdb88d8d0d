"""README, first run, what to do with the model: every command runs, and prints what the page shows."""

import pytest

from tests.docs.pages import OF_THE_MODEL, to_type

pytestmark = [pytest.mark.docs, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("command", to_type(OF_THE_MODEL), ids=str)
def test_command_runs_as_the_page_says(reader, command):
    reader.types(command)
