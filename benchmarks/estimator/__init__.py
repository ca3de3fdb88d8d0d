"""Stage 2's estimators, measured: which way they point, and what a training with each of them did.

``python -m benchmarks.estimator directions|trials|page``; figures go to ``docs/estimator/``, their tables and
plots into ``docs/estimator.md``.
"""
