"""Names of the Kubernetes objects that an installation has, for pipelines and served models alike."""

SETTINGS_CONFIG_MAP = "latentrec-settings"
"""ConfigMap with what every step of an installation shares (``manifests/base/settings.env``)."""

STORE_KEYS_SECRET = "mlpipeline-minio-artifact"
"""Secret with the keys of KFP's own object store; KFP makes it, an installation on ``gs://`` may lack it."""
