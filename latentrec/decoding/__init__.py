"""Constrained beam search over the catalogue's titles, and loading of any model as a recommender.

What needs torch (``TitleRecommender``, ``ConstrainedBeamSearch``…) is imported from its own module.
"""

from latentrec.decoding.options import DECODINGS, MIXED, DecodingOptions
from latentrec.decoding.recommender_loader import LOADERS, load_recommender

__all__ = ["DECODINGS", "LOADERS", "MIXED", "DecodingOptions", "load_recommender"]
