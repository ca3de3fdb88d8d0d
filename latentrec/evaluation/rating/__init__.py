"""Evaluation of rating models against their baselines."""
