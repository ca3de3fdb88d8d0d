"""What a dataset directory holds: filters, splits, the rating task, identity, report, previous runs."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.cli import main
from latentrec.core.html_page import shown
from latentrec.data import DataPrepConfig, Dataset, is_no_new_data, prepare
from latentrec.data.data_prep_config import months_before
from latentrec.storage import read_manifest
from tests.errors import refused
from tests.fixtures.review_files import DAY, START, grid, lines, review, titles, write


def day_of(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


@pytest.fixture
def run(tmp_path):
    """Prepares rows (and metadata) and returns the dataset."""

    def prepare_rows(rows, metadata=None, name="out", **config):
        files = {"reviews": (write(tmp_path / f"{name}.json", lines(rows)),)}
        if metadata is not None:
            files["metadata"] = (write(tmp_path / f"{name}-meta.json", lines(metadata)),)
        prepare(DataPrepConfig(**{"k_core": 1, **files, **config}), tmp_path / name)
        return Dataset(tmp_path / name)

    return prepare_rows


def test_files_and_types_are_those_of_the_contract(sample_dataset):
    list_of_int = pa.list_(pa.int32())
    samples = [("user_id", "int32"), ("history", list_of_int), ("target", "int32"), ("rating", "float")]
    expected = {
        "items": [("item_id", "int32"), ("item_key", "string"), ("title", "string"), ("title_id", "int32")],
        "users": [("user_id", "int32"), ("user_key", "string")],
        "interactions": [
            ("user_id", "int32"),
            ("item_id", "int32"),
            ("rating", "float"),
            ("timestamp", "int64"),
        ],
        **{split: [*samples, ("timestamp", "int64")] for split in ("train", "valid", "test")},
    }
    for name, columns in expected.items():
        schema = pq.read_schema(sample_dataset / f"{name}.parquet")
        for column, kind in columns:
            found = schema.field(column).type
            assert found == kind if isinstance(kind, pa.DataType) else str(found) == kind, (name, column)
    manifest = read_manifest(sample_dataset, "dataset")
    assert set(manifest.extra["source"][0]) == {"kind", "uri", "bytes", "sha256"}
    assert {"raw", "window", "title", "k_core", "users", "items", "train", "valid", "test"} <= set(
        manifest.counts
    )


def test_interactions_are_sorted_and_ids_follow_the_keys(sample_dataset):
    dataset = Dataset(sample_dataset)
    assert dataset.item_keys == sorted(dataset.item_keys)
    assert dataset.users["user_key"].to_pylist() == sorted(dataset.users["user_key"].to_pylist())
    user, time = (dataset.interactions[name].to_numpy() for name in ("user_id", "timestamp"))
    assert (np.lexsort((np.arange(len(user)), time, user)) == np.arange(len(user))).all()


def test_titles_are_clean_and_shared_titles_share_an_id(sample_dataset):
    dataset = Dataset(sample_dataset)
    assert not any("<" in title or "&amp;" in title or title != title.strip() for title in dataset.titles)
    assert any("&" in title for title in dataset.titles)
    by_id: dict = {}
    for title, title_id in zip(dataset.titles, dataset.title_ids, strict=True):
        assert by_id.setdefault(int(title_id), title) == title
    assert len(by_id) == len(set(dataset.titles)) < len(dataset.titles)
    assert dataset.has_titles


def test_train_count_counts_the_training_period_only(sample_dataset):
    dataset = Dataset(sample_dataset)
    data, train_end = dataset.interactions, dataset.manifest.extra["train_end"]
    time, item = data["timestamp"].to_numpy(), data["item_id"].to_numpy()
    later = np.bincount(item[time > train_end], minlength=dataset.n_items)
    up_to = np.bincount(item[time <= train_end], minlength=dataset.n_items)
    held_out = sum(
        np.bincount(split.targets[split.timestamps <= train_end], minlength=dataset.n_items)
        for split in (dataset.split("valid"), dataset.split("test"))
    )
    assert (dataset.train_counts == up_to - held_out).all()
    assert later.sum() > 0
    assert train_end == dataset.split("train").timestamps.max()


def test_window_is_utc_with_the_end_exclusive(run):
    rows = [
        review(f"U{user}", f"B{item:09d}", 5.0, day)
        for user in range(3)
        for item, day in enumerate(range(30))
    ]
    dataset = run(rows, window_start=day_of(START + 5 * DAY), window_end=day_of(START + 20 * DAY))
    times = dataset.interactions["timestamp"].to_numpy()
    assert (times.min(), times.max()) == (START + 5 * DAY, START + 19 * DAY)
    assert dataset.manifest.counts["window"] == 45
    assert dataset.manifest.extra["window"]["start"] == START + 5 * DAY


def test_window_moves_back_until_enough_items_remain(run):
    rows = [review(f"U{user}", f"B{month:09d}", 5.0, month * 30) for user in range(4) for month in range(24)]
    start = day_of(START + 20 * 30 * DAY)
    dataset = run(rows, window_start=start, min_items=10, widen_months=3)
    window = dataset.manifest.extra["window"]
    assert (dataset.n_items, window["widened"]) == (10, 2)
    assert window["start"] == months_before(START + 20 * 30 * DAY, 6)


def test_widening_stops_at_the_first_event_and_says_so(run):
    dataset = run(grid(), window_start=day_of(START + 20 * DAY), min_items=100)
    check = next(check for check in dataset.manifest.extra["checks"] if check["name"] == "min_items")
    assert (check["ok"], check["level"]) == (False, "warning")
    assert dataset.manifest.counts["window"] == 30


def test_months_before_keeps_the_day_and_crosses_years():
    date = int(datetime(2018, 2, 15, tzinfo=UTC).timestamp())
    assert day_of(months_before(date, 3)) == "2017-11-15"
    assert day_of(months_before(int(datetime(2018, 5, 31, tzinfo=UTC).timestamp()), 3)) == "2018-02-28"


def test_exact_duplicates_are_counted_and_dropped_only_when_asked(run):
    rows = grid()
    rows += [rows[3], rows[3], {**rows[4], "overall": 1.0}, {**rows[5], "unixReviewTime": START + 400 * DAY}]
    kept, dropped = run(rows, name="kept"), run(rows, name="dropped", duplicates="drop")
    assert kept.manifest.counts["repeats"] == dropped.manifest.counts["repeats"] == 3
    assert kept.manifest.counts["interactions"] == 34
    assert dropped.manifest.counts["interactions"] == 31
    assert sorted(dropped.interactions["rating"].to_pylist()) == sorted(
        row["overall"] for row in [*grid(), grid()[5]]
    )


def test_paper_profile_is_the_published_recipe_and_flags_still_count():
    paper = DataPrepConfig(reviews=("x",), profile="paper").resolved()
    assert (paper.window_start, paper.window_end) == ("2017-10-01", "2018-11-01")
    assert (paper.min_items, paper.widen_months, paper.k_core) == (5000, 3, 5)
    assert (paper.title_filter, paper.max_title_words, paper.duplicates) == ("paper", 20, "keep")
    mine = DataPrepConfig(reviews=("x",), profile="paper", k_core=3, window_start="2016-01-01").resolved()
    assert (mine.k_core, mine.window_start, mine.window_end) == (3, "2016-01-01", "2018-11-01")


def test_dates_split_is_strict(run):
    rows = [review(f"U{user}", f"B{day % 7:09d}", 5.0, day) for user in range(3) for day in range(30)]
    bounds = {"valid_start": day_of(START + 20 * DAY), "test_start": day_of(START + 25 * DAY)}
    dataset = run(rows, split="dates", **bounds)
    train, valid, test = (dataset.split(name).timestamps for name in ("train", "valid", "test"))
    assert train.max() < START + 20 * DAY <= valid.min()
    assert valid.max() < START + 25 * DAY <= test.min()


def test_leave_one_out_takes_the_last_two_of_users_with_three(run):
    rows = [review("A", f"B{n:09d}", 5.0, n) for n in range(5)]
    rows += [review("B", f"B{n:09d}", 5.0, n) for n in range(2)] + [review("C", "B000000000", 5.0, 9)]
    dataset = run(rows, split="leave_one_out")
    users = dataset.users["user_key"].to_pylist()
    samples = {
        name: [
            (users[split.user_ids[i]], split.history(i).tolist(), int(split.targets[i]))
            for i in range(len(split))
        ]
        for name in ("train", "valid", "test")
        for split in [dataset.split(name)]
    }
    assert samples["test"] == [("A", [0, 1, 2, 3], 4)]
    assert samples["valid"] == [("A", [0, 1, 2], 3)]
    assert sorted(samples["train"]) == [("A", [0], 1), ("A", [0, 1], 2), ("B", [0], 1)]
    assert dataset.train_counts.tolist() == [3, 2, 1, 0, 0]


def test_without_metadata_the_title_is_the_key_and_text_models_are_warned(run):
    dataset = run(grid())
    assert dataset.titles == dataset.item_keys
    assert not dataset.has_titles
    with refused("dataset.no_titles", "5", "--metadata", "--title-filter"):
        dataset.require_titles()


def test_order_of_metadata_rows_does_not_matter(run):
    rows = [*titles(), {"asin": "B000000000"}, {"asin": "B000000000", "title": "Another"}]
    one, two = run(grid(), rows, "one"), run(grid(), rows[::-1], "two")
    assert one.fingerprint == two.fingerprint
    assert one.titles[0] == "Another"


def test_funnel_counts_titles_of_items_that_the_core_drops_later(run):
    rows = [*grid(), review("U0", "B000000007", day=500), review("U1", "B000000008", day=500)]
    metadata = [*titles(5), {"asin": "B000000007", "title": "Rare", "description": ["x"]}]
    dataset = run(rows, metadata, k_core=3)
    funnel = {step["name"]: step for step in dataset.manifest.extra["funnel"]}
    assert (funnel["title"]["items"], funnel["title"]["interactions"]) == (6, 31)
    assert funnel["k_core"]["items"] == dataset.n_items == 5


class TestRatingTask:
    """``--task rating`` adds texts, rows and means of the training period."""

    @pytest.fixture
    def dataset(self, run):
        rows = [
            {**row, "reviewText": f"text {number} \u00e9", "summary": f"summary {number}"}
            for number, row in enumerate(grid(12, 6))
        ]
        del rows[7]["reviewText"]
        rows.insert(20, review("LONELY", "B000000000", day=999))
        return run(rows, titles(6), task="rating", max_history=3, k_core=2), rows

    def test_texts_belong_to_their_events(self, dataset):
        dataset, rows = dataset
        users, items = dataset.users["user_key"].to_pylist(), dataset.item_keys
        texts = {
            (row["reviewerID"], row["asin"], row["unixReviewTime"]): (
                row.get("reviewText"),
                row.get("summary"),
            )
            for row in rows
        }
        found = dataset.interactions.to_pylist()
        assert len(found) == 72
        for row in found:
            key = (users[row["user_id"]], items[row["item_id"]], row["timestamp"])
            assert (row["review_text"], row["summary"]) == texts[key]
        assert sum(row["review_text"] is None for row in found) == 1

    def test_rows_point_to_the_events_of_target_and_history(self, dataset):
        events = dataset[0].interactions.to_pylist()
        for name in ("train", "valid", "test"):
            for sample in pq.read_table(dataset[0].directory / f"{name}.parquet").to_pylist():
                target = events[sample["row"]]
                assert (target["user_id"], target["item_id"]) == (sample["user_id"], sample["target"])
                assert target["rating"] == sample["rating"]
                history = [events[row] for row in sample["history_rows"]]
                assert [event["item_id"] for event in history] == sample["history"]
                assert {event["user_id"] for event in history} == {sample["user_id"]}
                assert 1 <= len(history) <= 3

    def test_means_come_from_the_training_period_only(self, dataset):
        dataset = dataset[0]
        events = dataset.interactions.to_pandas()
        held_out = [
            row
            for name in ("valid", "test")
            for row in pq.read_table(dataset.directory / f"{name}.parquet")["row"].to_pylist()
        ]
        training = events.drop(index=held_out)
        training = training[training.timestamp <= dataset.manifest.extra["train_end"]]
        for table, name in ((dataset.items, "item_id"), (dataset.users, "user_id")):
            expected = training.groupby(name).rating.mean()
            for number, mean in enumerate(table["train_mean_rating"].to_pylist()):
                assert mean == (pytest.approx(expected[number], rel=1e-6) if number in expected else None)
        assert dataset.manifest.extra["train_mean_rating"] == pytest.approx(training.rating.mean())

    def test_texts_stay_with_their_events_where_bad_lines_are_skipped(self, run):
        rows = [{**row, "reviewText": f"text {number}"} for number, row in enumerate(grid(12, 6))]
        rows[10]["reviewText"] = 10  # no text: bad for this task, for another it would not be read
        rows[30]["overall"] = "five"
        dataset = run(rows, task="rating", skip_bad_lines=True, max_bad_share=0.1)
        assert dataset.manifest.counts["bad_lines"] == 2
        users, items = dataset.users["user_key"].to_pylist(), dataset.item_keys
        texts = {(row["reviewerID"], row["asin"]): row["reviewText"] for row in rows}
        found = dataset.interactions.to_pylist()
        assert len(found) == 70
        for row in found:
            assert row["review_text"] == texts[users[row["user_id"]], items[row["item_id"]]]

    def test_next_item_task_has_none_of_it(self, run):
        dataset = run(grid())
        assert "review_text" not in dataset.interactions.column_names
        assert "row" not in pq.read_schema(dataset.directory / "train.parquet").names


class TestPreviousDataset:
    """Scheduled runs compare with the run before."""

    def test_same_data_is_recognized_as_nothing_new(self, run, tmp_path, capsys):
        first = run(grid(), name="first")
        path = str(tmp_path / "first.json")
        arguments = ["--reviews", path, "--k-core", "1", "--previous", str(first.directory)]
        main(["data-prep", *arguments, "--output", str(tmp_path / "second"), "--on-no-new-data", "stop"])
        assert "no new data" in capsys.readouterr().out
        assert is_no_new_data(read_manifest(tmp_path / "second"))

    def test_one_more_review_is_new(self, run, tmp_path):
        first = run(grid(), name="first")
        previous = str(first.directory / "manifest.json")
        second = run([*grid(), review("U0", "B000000001", 4.0, 400)], name="second", previous=previous)
        assert not is_no_new_data(second.manifest)

    def test_sudden_drop_in_volume_fails_the_step(self, run):
        first = run(grid(12), name="first")
        with refused("dataset.check_failed", "volume_against_previous", "30", "60", "-50.0%"):
            run(grid(6), name="second", previous=str(first.directory), max_volume_drop=0.4)
        assert run(grid(6), name="third", previous=str(first.directory), max_volume_drop=0.6)

    def test_previous_must_be_a_dataset(self, run, tmp_path):
        with refused("dataset.bad_baseline"):
            run(grid(), previous=str(tmp_path / "nothing"))
        (tmp_path / "m.json").write_text('{"kind": "model"}')
        with refused("dataset.bad_baseline"):
            run(grid(), previous=str(tmp_path / "m.json"))


def test_report_is_self_contained_and_says_what_was_done(real_charts, run):
    rows = [*grid(20), grid(20)[0]]
    dataset = run(rows, titles(brand="<script>alert(1)</script>"), k_core=2)
    page = (dataset.directory / "report.html").read_text(encoding="utf-8")
    for text in (
        "101",
        "Thing 3",
        "splits_disjoint_and_complete",
        "exact repeats",
        "valid from",
        "sha256",
        "k_core",
    ):
        assert text in page, text
    assert "<script" not in page
    assert (
        "http"
        not in page.replace(dataset.manifest.extra["source"][0]["uri"], "").split("<h2>Configuration")[0]
    )
    assert page.count("<svg") == 4
    numbers = r"<td>[\d,]+</td>"
    assert re.search(rf"<td>exact repeats handled</td>{numbers * 3}", page)
    assert re.search(rf"<td>test</td>{numbers * 3}", page)


def test_a_template_that_names_a_dictionary_s_own_method_is_refused():
    with pytest.raises(TypeError, match="items"):
        shown({"items": 5}.items)
    assert (shown(5), shown("text"), shown(None)) == (5, "text", None)


def test_titles_in_the_report_cannot_inject_markup(real_charts, run):
    dataset = run(
        grid(20), [*titles()[:4], {"asin": "B000000004", "title": "x <img src=y>"}], title_filter="none"
    )
    page = (dataset.directory / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page


def test_help_shows_every_field_with_default_and_meaning(capsys):
    with pytest.raises(SystemExit):
        main(["data-prep", "--help"])
    shown = capsys.readouterr().out
    for flag in (
        "--k-core",
        "--title-filter",
        "--window-start",
        "--skip-bad-lines",
        "--profile",
        "--previous",
    ):
        assert flag in shown
    assert "(default: 5)" in shown


def test_output_says_where_the_dataset_is(tmp_path, capsys):
    path = write(tmp_path / "r.json", lines(grid()))
    main(["data-prep", "--reviews", path, "--k-core", "1", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    fingerprint = json.loads((tmp_path / "out" / "manifest.json").read_text())["fingerprint"]
    assert fingerprint in printed
