"""One folder a containerized step: a typed KFP component that calls one function of the library.

Each ``component.py`` holds an interface and a handful of lines; the work is done in ``latentrec``, which the
step's image contains. ``README.md`` beside it lists inputs and outputs.
"""
