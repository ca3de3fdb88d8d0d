"""MLflow: runs, model registry, the served model. The only room that knows MLflow."""
