"""The command: listing, unknown commands, exit codes."""

import pytest

from latentrec import cli
from latentrec.core import Interrupted, UserError
from latentrec.steps.status import exit_code_on_error


def test_listing_names_every_command(capsys):
    cli.main([])
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


def test_unknown_command_exits_2_and_lists_the_known(refused_command):
    refused_command(["trane"], "config.unknown_name", "'trane'", *cli.COMMANDS)


@pytest.mark.parametrize(("error", "code"), [(UserError("x"), 2), (Interrupted("x"), 143), (OSError("x"), 1)])
def test_exceptions_become_exit_codes(error, code):
    with pytest.raises(SystemExit) as caught, exit_code_on_error():
        raise error
    assert caught.value.code == code


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_shows_its_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert "usage: latentrec " + name in capsys.readouterr().out
