"""What shops ask of a served model: stock, candidates, long histories, vanished items, and who answered."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from mlflow.models.utils import _enforce_schema

from latentrec.catalog import Catalogue
from latentrec.core.process import LOADING_FREED
from latentrec.decoding import DecodingOptions
from latentrec.models import Ranking
from latentrec.models.popularity import Popularity
from latentrec.registry.packaging import signature_of
from latentrec.serving import recommendation_service
from latentrec.serving.recommendation_service import RecommendationService, ServingModel, require_overlap
from latentrec.serving.request_schemas import BadRequest, Parameters, RecommendationRow, parse_rows
from tests.errors import refused

N_ITEMS = 600
COUNTS = np.arange(N_ITEMS, 0, -1)
KEYS = [f"I{number:04d}" for number in range(N_ITEMS)]


def catalogue_of(keys, counts=None):
    return Catalogue.from_items(keys, [f"Title {key}" for key in keys], counts)


@pytest.fixture(scope="module")
def service():
    catalogue = catalogue_of(KEYS, COUNTS)
    return RecommendationService(ServingModel.of(Popularity(COUNTS.astype(np.float32)), catalogue))


def ask(service, row, k=5, exclude=True):
    return service.recommend([row], Parameters(k, exclude))[0]


class TitleReader:
    """Stands in for a title model: remembers what it was asked to read, ranks by item id."""

    reads_titles = True

    def __init__(self, n_items):
        self.name, self.unscorable, self.read = "reader", np.zeros(n_items, bool), []

    def rank(self, histories, k, *, exclude=None, history_titles=None):
        self.read.append(history_titles)
        lists = []
        for row in range(len(histories)):
            closed = set() if exclude is None else set(np.asarray(exclude[row]).tolist())
            lists.append([item for item in range(len(self.unscorable)) if item not in closed][:k])
        items = np.array([row + [-1] * (k - len(row)) for row in lists], np.int32)
        return Ranking(items, np.where(items >= 0, 1.0, -np.inf).astype(np.float32))


def test_items_owned_beyond_the_models_history_are_left_out(service):
    owned = KEYS[:250]
    assert ask(service, RecommendationRow(owned)).item_keys == KEYS[250:255]
    assert ask(service, RecommendationRow(owned), exclude=False).item_keys == KEYS[:5]


def test_only_candidates_are_ranked(service):
    candidates = [KEYS[400], KEYS[30], "unknown", KEYS[30], KEYS[2]]
    assert ask(service, RecommendationRow([KEYS[5]], candidates=candidates)).item_keys == [
        KEYS[2],
        KEYS[30],
        KEYS[400],
    ]
    assert ask(service, RecommendationRow([KEYS[2]], candidates=candidates)).item_keys == [
        KEYS[30],
        KEYS[400],
    ]
    assert ask(service, RecommendationRow([KEYS[5]], candidates=["unknown"])).item_keys == []


def test_excluded_items_are_left_out(service):
    row = RecommendationRow([KEYS[0]], exclude_items=[KEYS[1], KEYS[3], "unknown"])
    assert ask(service, row, k=3).item_keys == [KEYS[2], KEYS[4], KEYS[5]]


def test_the_fallback_honors_candidates_and_exclusions(service):
    row = RecommendationRow(["unknown"], candidates=KEYS[10:14], exclude_items=[KEYS[11]])
    answer = ask(service, row)
    assert (answer.fallback, answer.item_keys) == (True, [KEYS[10], KEYS[12], KEYS[13]])


def test_users_of_one_batch_have_their_own_candidates(service):
    rows = [
        RecommendationRow([KEYS[0]], candidates=[KEYS[9]]),
        RecommendationRow([KEYS[0]]),
        RecommendationRow([KEYS[0]], exclude_items=[KEYS[1]]),
    ]
    answers = service.recommend(rows, Parameters(2))
    assert [answer.item_keys for answer in answers] == [[KEYS[9]], KEYS[1:3], KEYS[2:4]]


class SlowQueue(queue.SimpleQueue):
    """Holds whoever puts something up until that has been ranked, or for long enough that it could be."""

    ranked = threading.Event()

    def put(self, item):
        self.ranked.clear()
        super().put(item)
        self.ranked.wait(0.3)


def test_rows_of_one_caller_are_ranked_together_however_fast_the_model_is(monkeypatch):
    """One that ranks its first row alone gives it other last bits: shards of users would differ."""
    monkeypatch.setattr("latentrec.serving.recommendation_service.queue.SimpleQueue", SlowQueue)
    sizes = []

    class Model(Popularity):
        def rank(self, histories, k, **more):
            sizes.append(len(histories))
            SlowQueue.ranked.set()
            return super().rank(histories, k, **more)

    loaded = ServingModel.of(Model(COUNTS.astype(np.float32)), catalogue_of(KEYS, COUNTS))
    service = RecommendationService(loaded, max_batch=4)
    sizes.clear()  # of the warm-up
    rows = [RecommendationRow([key]) for key in KEYS[:10]]
    rows.insert(2, RecommendationRow(["unknown"]))  # answered by popularity, without the model
    answers = service.recommend(rows, Parameters(3))
    assert sizes == [4, 4, 2]
    assert [answer.fallback for answer in answers] == [row.history == ["unknown"] for row in rows]
    assert service.recommend([RecommendationRow(["unknown"])], Parameters(3))[0].fallback
    assert sizes == [4, 4, 2]


def test_callers_who_wait_together_get_each_what_they_asked_for():
    free, begun, sizes = threading.Event(), threading.Event(), []
    free.set()

    class Model(Popularity):
        def rank(self, histories, k, **more):
            begun.set()
            free.wait(30)
            sizes.append(len(histories))
            return super().rank(histories, k, **more)

    loaded = ServingModel.of(Model(COUNTS.astype(np.float32)), catalogue_of(KEYS, COUNTS))
    service = RecommendationService(loaded)
    free.clear()
    begun.clear()
    sizes.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = []
        for number, k in enumerate((2, 3, 3, 2, 2, 5, 2)):
            asked.append(pool.submit(ask, service, RecommendationRow([KEYS[0]]), k))
            assert begun.wait(30)  # the first is being ranked, the others wait
            while service._callers.qsize() < number:
                time.sleep(0.001)
        free.set()
        assert [len(one.result().item_keys) for one in asked] == [2, 3, 3, 2, 2, 5, 2]
    assert sizes == [1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"history": [], "candidates": "I1"}, "candidates"),
        ({"history": [], "exclude_items": [1]}, "exclude_items"),
        ({"history": ["I1", None]}, r"row 0\.history "),
        ({"history": ["I1"], "history_titles": [None]}, r"row 0\.history_titles "),
    ],
)
def test_malformed_lists_are_refused_by_name(record, field):
    with pytest.raises(BadRequest, match=field):
        parse_rows([record])


@pytest.mark.parametrize("history", [["B000000001", "B000000002"], ["B000000001", None], []])
def test_mlflows_schema_hands_histories_on_untouched(history):
    frame = pd.DataFrame({"history": pd.Series([history], dtype=object)})
    seen = _enforce_schema(frame, signature_of("latentr3").inputs)
    assert list(seen["history"][0]) == history


@pytest.mark.parametrize("ratings", [[5.0, 4.0], [5, 4.5], [5, 4], np.array([5, 4]), [np.int64(5), 4]])
def test_whole_number_ratings_are_ratings(ratings):
    frame = pd.DataFrame(
        {"history": [["a", "b"]], "history_ratings": pd.Series([ratings], dtype=object), "target": ["c"]}
    )
    seen = _enforce_schema(frame, signature_of("reczero").inputs)
    (row,) = parse_rows(seen.to_dict("records"), rating=True)
    assert row.history_ratings == [float(value) for value in ratings]


@pytest.mark.parametrize("ratings", [[True, 4], ["5", 4], [None, 4], [float("nan"), 4], [9, 4]])
def test_what_is_no_rating_is_refused_by_the_model_itself(ratings):
    frame = pd.DataFrame(
        {"history": [["a", "b"]], "history_ratings": pd.Series([ratings], dtype=object), "target": ["c"]}
    )
    seen = _enforce_schema(frame, signature_of("reczero").inputs)
    with pytest.raises(BadRequest, match="history_ratings"):
        parse_rows(seen.to_dict("records"), rating=True)


def test_titles_of_vanished_items_come_from_the_request_or_the_versions_own_catalogue():
    own, today = catalogue_of(KEYS[:10]), catalogue_of([*KEYS[2:10], "N1"])
    reader = TitleReader(today.n_items)
    service = RecommendationService(ServingModel.of(reader, today, own=own))
    history, titles = [KEYS[0], KEYS[1], KEYS[4], "never seen"], ["", "A better title", "", ""]
    answer = ask(service, RecommendationRow(history, titles), k=3)
    assert reader.read[-1] == [[f"Title {KEYS[0]}", "A better title", f"Title {KEYS[4]}"]]
    assert (answer.unknown_items, answer.fallback) == (1, False)
    assert KEYS[4] not in answer.item_keys


def test_a_buyer_all_of_whose_items_vanished_still_gets_a_list_of_the_models():
    own, today = catalogue_of(KEYS[:10]), catalogue_of(KEYS[2:10])
    reader = TitleReader(today.n_items)
    loaded = ServingModel.of(reader, today, own=own)
    gone = RecommendationRow([KEYS[0], KEYS[1]])
    answer = ask(RecommendationService(loaded), gone)
    assert (answer.fallback, answer.unknown_items) == (False, 0)
    assert reader.read[-1] == [[f"Title {KEYS[0]}", f"Title {KEYS[1]}"]]
    forgetful = RecommendationService(ServingModel.of(reader, today))
    assert ask(forgetful, gone).fallback, "without the version's own catalogue there is nothing to read"


def test_a_catalogue_that_lost_most_items_is_refused():
    old = catalogue_of(KEYS[:10])
    require_overlap(old, catalogue_of([*KEYS[5:10], *KEYS[100:300]]))
    with refused("serving.catalogue_shrank", "4", "40%"):
        require_overlap(old, catalogue_of(KEYS[:4]))
    with refused("serving.catalogue_shrank", "0%"):
        require_overlap(old, catalogue_of(KEYS[100:120]))


@pytest.mark.parametrize("exclude", [True, False])
def test_default_of_exclude_history_is_that_of_the_evaluation(exclude):
    options = DecodingOptions(exclude_history=exclude)
    params = {spec.name: spec.default for spec in signature_of("latentr3", options).params.params}
    assert params == {"k": 10, "exclude_history": exclude}


def test_loading_gives_back_what_it_no_longer_needs(served, monkeypatch):
    trimmed = []
    monkeypatch.setattr(recommendation_service, "trim_heap", trimmed.append)
    model = served.shop.sasrec
    ServingModel.load(model, model / "items.parquet")
    assert trimmed == [LOADING_FREED]
