"""What surrounds a component's library call: parameters, preflight, status, MLflow run, launch."""
