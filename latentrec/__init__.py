"""Latentrec: train, judge and ship recommenders that reason in latent space.

The rooms, each of which may import only what stands before it:
``core`` and ``storage`` ← ``data`` ← ``catalog``, ``prompts``, ``metrics`` ← ``models`` ← ``decoding``
← ``training`` ← ``evaluation`` ← ``tracking`` ← ``cli``.
"""

__version__ = "0.1.0"
