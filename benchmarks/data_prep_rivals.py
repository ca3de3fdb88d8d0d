"""The same job written four other ways: plain Python loops with json or orjson, polars, duckdb.

The job: 2018 reviews in, 5-core, users and items numbered by sorted key, events sorted by user, time and
file order, temporal 8:1:1 samples with at most ten items of history, six Parquet files out. Every version
writes the same rows in the same order; ``benchmarks/data_prep.py`` compares them. Each is written the way
that its library is meant to be used, without work that the result does not need.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

K_CORE, MAX_HISTORY = 5, 10
SAMPLE_COLUMNS = ("user_id", "history", "target", "rating", "timestamp")


def with_json(reviews: Path, output: Path) -> None:
    """Plain loops, standard library json."""
    import json

    _loops(reviews, output, json.loads)


def with_orjson(reviews: Path, output: Path) -> None:
    """Plain loops, orjson."""
    import orjson

    _loops(reviews, output, orjson.loads)


def with_polars(reviews: Path, output: Path) -> None:
    """Polars: lazy scan, semi-joins until the core is stable, histories from shifted columns."""
    import polars as pl

    schema = {
        "reviewerID": pl.String,
        "asin": pl.String,
        "overall": pl.Float64,
        "unixReviewTime": pl.Int64,
    }
    events = (
        pl.scan_ndjson(reviews, schema=schema)
        .select(
            user="reviewerID",
            item="asin",
            rating=pl.col("overall").cast(pl.Float32),
            timestamp="unixReviewTime",
        )
        .collect(engine="streaming")
    )
    keys = {}
    for name in ("user", "item"):  # dense codes in the order of the keys
        unique = events.select(pl.col(name).unique().sort()).with_row_index(f"{name}_code")
        events = events.join(unique, on=name, how="left", maintain_order="left").drop(name)
        keys[name] = unique
    while True:
        before = events.height
        for name in ("user_code", "item_code"):
            enough = events.group_by(name).len().filter(pl.col("len") >= K_CORE)
            events = events.join(enough, on=name, how="semi", maintain_order="left")
        if events.height == before:
            break
    for name in ("user", "item"):
        left = keys[name].join(events.select(f"{name}_code").unique(), on=f"{name}_code", how="semi")
        left = left.sort(f"{name}_code").with_row_index(f"{name}_id").cast({f"{name}_id": pl.Int32})
        left.select(f"{name}_id", pl.col(name).alias(f"{name}_key")).write_parquet(
            output / f"{name}s.parquet"
        )
        events = events.join(
            left.select(f"{name}_code", f"{name}_id"), on=f"{name}_code", how="left", maintain_order="left"
        )
    events = events.select("user_id", "item_id", "rating", "timestamp").sort(
        "user_id", "timestamp", maintain_order=True
    )
    events.write_parquet(output / "interactions.parquet")
    past = [pl.col("item_id").shift(back).over("user_id") for back in range(MAX_HISTORY, 0, -1)]
    samples = (
        events.with_columns(history=pl.concat_list(past).list.drop_nulls())
        .filter(pl.col("history").list.len() > 0)
        .select("user_id", "history", pl.col("item_id").alias("target"), "rating", "timestamp")
        .sort("timestamp", maintain_order=True)
    )
    first, second = int(samples.height * 0.8), int(samples.height * 0.9)
    samples[:first].write_parquet(output / "train.parquet")
    samples[first:second].write_parquet(output / "valid.parquet")
    samples[second:].write_parquet(output / "test.parquet")


def with_duckdb(reviews: Path, output: Path) -> None:
    """DuckDB: SQL over read_json, a window frame for histories."""
    import duckdb

    db = duckdb.connect()
    db.execute("set preserve_insertion_order = true")
    db.execute(
        """create table events as select row_number() over () as line, reviewerID as u, asin as i,
        overall::float as rating, unixReviewTime as t from read_json(?, format='newline_delimited', columns=
        {reviewerID: 'VARCHAR', asin: 'VARCHAR', overall: 'DOUBLE', unixReviewTime: 'BIGINT'})""",
        [str(reviews)],
    )
    before = -1
    while (left := _scalar(db, "select count(*) from events")) != before:
        before = left
        for key in ("u", "i"):
            db.execute(
                f"create or replace table events as select * from events where {key} in "
                f"(select {key} from events group by {key} having count(*) >= {K_CORE})"
            )
    for key, name in (("u", "user"), ("i", "item")):
        db.execute(
            f"create table {name}s as select (row_number() over (order by {key}) - 1)::int as {name}_id, "
            f"{key} as {name}_key from (select distinct {key} from events)"
        )
        db.execute(f"copy (select * from {name}s order by {name}_id) to '{output}/{name}s.parquet'")
    db.execute(
        """create table arranged as select user_id, item_id, rating, t as timestamp, line from events
        join users on u = user_key join items on i = item_key"""
    )
    db.execute(
        f"copy (select user_id, item_id, rating, timestamp from arranged order by user_id, timestamp, line) "
        f"to '{output}/interactions.parquet'"
    )
    db.execute(
        f"""create table samples as select row_number() over (order by timestamp, user_id, line) - 1 place, *
        from (select user_id, list(item_id) over (partition by user_id order by timestamp, line
        rows between {MAX_HISTORY} preceding and 1 preceding) as history, item_id as target, rating,
        timestamp, line from arranged) where len(history) > 0"""
    )
    n = _scalar(db, "select count(*) from samples")
    bounds = (0, int(n * 0.8), int(n * 0.9), n)
    for number, name in enumerate(("train", "valid", "test")):
        db.execute(
            f"copy (select {', '.join(SAMPLE_COLUMNS)} from samples where place >= {bounds[number]} and "
            f"place < {bounds[number + 1]} order by place) to '{output}/{name}.parquet'"
        )


RIVALS = {"json": with_json, "orjson": with_orjson, "polars": with_polars, "duckdb": with_duckdb}


def _loops(reviews: Path, output: Path, loads) -> None:  # type: ignore[no-untyped-def]
    user_codes: dict[str, int] = {}
    item_codes: dict[str, int] = {}
    events = []
    with reviews.open("rb") as stream:
        for line in stream:
            review = loads(line)
            user = user_codes.setdefault(review["reviewerID"], len(user_codes))
            item = item_codes.setdefault(review["asin"], len(item_codes))
            events.append((user, item, review["overall"], review["unixReviewTime"]))
    while True:
        before = len(events)
        for place in (0, 1):
            counts = Counter(event[place] for event in events)
            if min(counts.values()) < K_CORE:
                events = [event for event in events if counts[event[place]] >= K_CORE]
        if len(events) == before:
            break
    users = {event[0] for event in events}
    items = {event[1] for event in events}
    user_keys = sorted(key for key, code in user_codes.items() if code in users)
    item_keys = sorted(key for key, code in item_codes.items() if code in items)
    user_ids = {user_codes[key]: number for number, key in enumerate(user_keys)}
    item_ids = {item_codes[key]: number for number, key in enumerate(item_keys)}
    events = [(user_ids[user], item_ids[item], rating, time) for user, item, rating, time in events]
    events.sort(key=lambda event: (event[0], event[3]))
    samples = []
    past: list[int] = []
    last_user = -1
    for user, item, rating, time in events:
        if user != last_user:
            past, last_user = [], user
        if past:
            samples.append((user, past[-MAX_HISTORY:], item, rating, time))
        past.append(item)
    samples.sort(key=lambda sample: sample[4])
    _write(output / "users.parquet", {"user_id": pa.int32(), "user_key": pa.string()}, enumerate(user_keys))
    _write(output / "items.parquet", {"item_id": pa.int32(), "item_key": pa.string()}, enumerate(item_keys))
    event_types = {
        "user_id": pa.int32(),
        "item_id": pa.int32(),
        "rating": pa.float32(),
        "timestamp": pa.int64(),
    }
    _write(output / "interactions.parquet", event_types, events)
    types = (pa.int32(), pa.list_(pa.int32()), pa.int32(), pa.float32(), pa.int64())
    sample_types = dict(zip(SAMPLE_COLUMNS, types, strict=True))
    first, second = int(len(samples) * 0.8), int(len(samples) * 0.9)
    for name, part in (
        ("train", samples[:first]),
        ("valid", samples[first:second]),
        ("test", samples[second:]),
    ):
        _write(output / f"{name}.parquet", sample_types, part)


def _write(path: Path, types: dict[str, pa.DataType], rows) -> None:  # type: ignore[no-untyped-def]
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types.values(), strict=True)]
    pq.write_table(pa.table(dict(zip(types, arrays, strict=True))), path, compression="zstd")


def _scalar(db, query: str) -> int:  # type: ignore[no-untyped-def]
    return int(db.execute(query).fetchone()[0])


if __name__ == "__main__":
    RIVALS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
