"""``python -m latentrec``: the ``latentrec`` command."""

from latentrec.cli import main

if __name__ == "__main__":
    main()
