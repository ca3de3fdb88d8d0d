"""Constrained beam search over the catalogue's titles, and loading of any model as a recommender."""
