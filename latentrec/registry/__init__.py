"""The model registry in MLflow: registration, promotion under a lock, model cards, packaging, download."""
