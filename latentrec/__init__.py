"""Latentrec: train, evaluate and ship recommenders that reason in latent space.

Each layer imports only layers before it: ``core`` ← ``storage`` ← ``metrics`` ← ``data`` ← ``catalog`` ←
``prompts`` ← ``models`` ← ``decoding`` ← ``training`` ← ``evaluation`` ← ``tracking`` ← ``serving`` ←
``registry`` ← ``steps`` ← ``cli``.
"""

from latentrec.core.process import keep_few_primitives, wait_passively

wait_passively()
keep_few_primitives()

__version__ = "0.1.0"
