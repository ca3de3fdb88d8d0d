"""``python -m latentrec.cli``."""

from latentrec.cli import main

main()
