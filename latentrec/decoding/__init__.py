"""Constrained beam search over the catalogue's titles, and loading of any model as a recommender.

What needs torch (``TitleRecommender``, ``ConstrainedBeamSearch``…) is imported from its own module.
"""

from latentrec.decoding.load import LOADERS, load_recommender

__all__ = ["LOADERS", "load_recommender"]
