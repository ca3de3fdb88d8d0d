"""MLflow runs and metrics: the run tree, the metric logger and its disk queue, system metrics."""
