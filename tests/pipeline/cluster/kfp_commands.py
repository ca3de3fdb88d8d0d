"""What the tests of submitting and scheduling share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PARAMS = "customer_reviews=gs://b/reviews.json.gz data_k_core=3 sft.patience=1"


def only(table: dict) -> dict:
    (entry,) = table.values()
    return entry
