"""Constrained beam search over the catalogue's titles, and loading of any model as a recommender.

What needs torch (``TitleRecommender``, ``ConstrainedBeamSearch``…) is imported from its own module.
"""

from latentrec.decoding.options import MIXED, DecodingOptions
from latentrec.decoding.recommender_loader import load_recommender

__all__ = ["MIXED", "DecodingOptions", "load_recommender"]
