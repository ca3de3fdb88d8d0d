"""Which samples a model may have trained on."""

from types import SimpleNamespace

import numpy as np

from latentrec.evaluation.leakage import leaks

STAMPS = np.array([10, 20, 30, 40])
DATASET = SimpleNamespace(fingerprint="today", train_end=5)


def info(fingerprint, train_end):
    return SimpleNamespace(dataset_fingerprint=fingerprint, train_end=train_end)


def test_an_event_at_the_end_of_the_training_period_was_seen():
    found = leaks({"old": info("another", 20)}, DATASET, "test", STAMPS)
    assert found["old"].tolist() == [True, True, False, False]


def test_a_mixture_has_seen_what_its_assistant_has_seen():
    infos = {"mixed": info("another", 10), "sasrec": info("another", 30), "alone": info("today", 5)}
    found = leaks(infos, DATASET, "test", STAMPS, {"mixed": ["sasrec"]})
    assert found["mixed"].tolist() == [True, True, True, False]
    assert set(found) == {"mixed", "sasrec"}
