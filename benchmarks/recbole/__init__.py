"""Our SASRec against RecBole's on the same samples: ``python -m benchmarks.recbole --help``."""
