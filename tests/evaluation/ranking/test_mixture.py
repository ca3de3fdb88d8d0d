"""The mixture's weight is chosen on the validation split, and of equal weights the largest."""

import numpy as np
import pytest

from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.evaluation.ranking.mixture import ALPHAS, AlphaChoice, choose_alpha
from latentrec.models import Ranking


class OnlyValidation(Dataset):
    """A dataset whose other splits may not be read."""

    def split(self, name):
        assert name == "valid"
        return super().split(name)


class RightWhere:
    """Ranks the last item plus one first at some weights, and last at the others."""

    name, alpha = "mixed", None

    def __init__(self, catalogue, right):
        self._n_items, self._right = catalogue.n_items, right
        self.unscorable = np.zeros(catalogue.n_items, bool)
        self.asked = []

    def rank(self, histories, k, *, exclude=None):
        self.asked += [len(histories)]
        start = 1 if self.alpha in self._right else 2
        firsts = np.array([[(int(h[-1]) + start) % self._n_items] for h in histories], np.int32)
        return Ranking(firsts, np.zeros(firsts.shape, np.float32))


@pytest.mark.parametrize(
    ("right", "chosen"), [((0.3,), 0.3), ((0.3, 0.7), 0.7), (ALPHAS, 1.0), ((), 1.0), ((0.1, 1.0), 1.0)]
)
def test_weight_is_the_best_on_validation_and_the_largest_of_equals(dataset, right, chosen):
    catalogue = Catalogue.from_dataset(Dataset(dataset))
    recommender = RightWhere(catalogue, right)
    options = {"exclude_history": False, "batch_size": 64, "seed": 1}
    choice = choose_alpha(
        recommender, OnlyValidation(dataset), catalogue, metric="ndcg_at_10", n_samples=50, **options
    )
    assert choice.alpha == recommender.alpha == chosen
    assert choice.n_samples == 50
    assert sum(recommender.asked) == 50 * len(ALPHAS)
    assert list(choice.values) == [f"{alpha:g}" for alpha in ALPHAS]


def test_a_mixture_that_is_mostly_the_assistant_is_called_so():
    least, most = min(ALPHAS), max(ALPHAS)
    assert "mostly the assistant's" in AlphaChoice(least, "ndcg_at_10", {}, 300).note
    assert AlphaChoice(most, "ndcg_at_10", {}, 300).note == ""
    assert AlphaChoice(least).note == "", "the user's own choice needs no word"
