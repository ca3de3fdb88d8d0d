"""Evaluation of recommenders: scoring, tables, cost, LARES over its recurrence depth."""
