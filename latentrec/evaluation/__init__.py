"""Scoring of models on a split, slices, the promotion decision, the report."""
