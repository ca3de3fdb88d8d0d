"""Constrained beam search over the catalogue's titles, and loading of any model as a recommender.

What needs torch (``TitleRecommender``, ``ConstrainedBeamSearch``…) is imported from its own module.
"""

from latentrec.decoding.recommender_loader import ASSISTED, LOADERS, load_recommender

__all__ = ["ASSISTED", "LOADERS", "load_recommender"]
