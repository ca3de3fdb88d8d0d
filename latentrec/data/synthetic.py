"""A small generated shop in the raw Amazon 2018 format: order in a history is informative.

People walk through product families. After an item they most often buy its complement of the same brand
(machine, then grinder, then pitcher…), sometimes that of the brand which is in fashion this quarter, buy
again what is used up, or move on to the family that their hobby leads to. Popularity sees none of this,
so a model of sequences can beat it, and titles state the structure, so a model of titles can too.

The dirt of real files is planted as well: several items with one title, HTML in titles, entities, titles
of more than twenty words, missing titles and metadata rows, exact duplicate reviews, several reviews of a
user on one day, people with one or two reviews, reviews without text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from latentrec.core import UserError
from latentrec.data.synthetic_vocabulary import BRANDS, DETAILS, FAMILIES, OPENINGS, SERIES, SUMMARIES
from latentrec.storage import ArtifactWriter, expand_output

DAY = 86_400
FIRST_DAY = datetime(2016, 10, 1, tzinfo=UTC)
PERIOD_DAYS = 730
TYPES_PER_FAMILY = len(FAMILIES[0][1])
_P_COMPLEMENT, _P_IN_FASHION, _P_AHEAD = 0.55, 0.15, 0.12
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class SampleItem:
    """One product: where it stands in the shop, and its metadata row (``None``: the row is missing)."""

    asin: str
    family: int
    brand: int
    position: int
    brand_name: str
    kind: str
    title: str | None
    has_metadata: bool
    quality: float


def generate_sample(
    output_dir: str | Path, *, seed: int = 42, users: int = 420, items: int = 300, events_per_user: int = 40
) -> tuple[Path, Path]:
    """Write ``reviews.json`` and ``meta.json`` (JSON lines) and return their paths.

    The bytes depend on the arguments only, in any process and on any machine (nothing is compressed).

    Args:
        output_dir: made if needed; the two files are replaced.
        seed: of everything random.
        users: regular customers; a tenth as many occasional ones come on top.
        items: products, rounded down to a multiple of 72 (twelve families of six types, so many brands each).
        events_per_user: mean number of reviews of a regular customer.

    Raises:
        UserError: a number is not positive.
    """
    for name, value in (("users", users), ("items", items), ("events_per_user", events_per_user)):
        if value < 1:
            raise UserError(f"sample: {name} is {value}, expected a positive number", code="config.bad_value")
    generator = random.Random(seed)
    shop = _make_shop(generator, items)
    reviews = list(_walks(generator, shop, users, events_per_user))
    reviews.sort(key=lambda review: review["unixReviewTime"])  # stable: the order of a day's purchases stays
    reviews = _with_duplicates(generator, reviews)
    metadata = [_metadata_row(generator, shop, item) for item in shop if item.has_metadata]
    config = {"seed": seed, "users": users, "items": items, "events_per_user": events_per_user}
    output = expand_output(output_dir)
    with ArtifactWriter(output, "sample", config, keep_equal=True) as writer:
        _write_lines(writer.path / "reviews.json", reviews)
        _write_lines(writer.path / "meta.json", sorted(metadata, key=lambda row: str(row["asin"])))
        writer.counts = {"reviews": len(reviews), "products": len(metadata)}
    return output / "reviews.json", output / "meta.json"


def _make_shop(generator: random.Random, items: int) -> list[SampleItem]:
    """Families × brands × product types, with the dirt of a real catalogue in the titles."""
    brands_per_family = max(1, items // (len(FAMILIES) * TYPES_PER_FAMILY))
    names = [brand + series for series in SERIES for brand in BRANDS]
    shop: list[SampleItem] = []
    seen: set[str] = set()
    for family, (_, kinds) in enumerate(FAMILIES):
        for brand in range(brands_per_family):
            name = names[(family * 5 + brand * 7 + (brand // len(BRANDS)) * 24) % len(names)]
            for position, kind in enumerate(kinds):
                asin = _new_key(generator, "B0", 10, seen)
                title, has_metadata = _title(generator, name, kind, len(shop))
                shop.append(
                    SampleItem(
                        asin, family, brand, position, name, kind, title, has_metadata,
                        quality=generator.gauss(0.0, 0.5),
                    )
                )  # fmt: skip
    return shop


def _title(generator: random.Random, brand: str, kind: str, number: int) -> tuple[str | None, bool]:
    """Mostly ``brand kind``; every so often one of the things that real metadata holds."""
    title = f"{brand} {kind}"
    match number % 97:
        case 13:
            return None, True
        case 29:
            return None, False
        case 41:
            return f'<span id="productTitle" class="a-size-large">{title}</span>', True
        case 59:
            return '<span class="a-size-medium a-color-secondary a-text-normal', True
        case 73:
            words = "with Free Gift Box and Two Year Warranty for Beginners and Professionals at Home or on the Go"  # noqa: E501
            return f"{title} {words} Best {generator.choice(('Price', 'Gift', 'Choice'))} of the Year", True
        case 83:
            return f"  {title} ", True
        case 5 | 11:  # the same kind of two brands: one title
            return f"{kind} (Assorted)", True
    return title, True


def _walks(
    generator: random.Random, shop: list[SampleItem], users: int, events_per_user: int
) -> Iterator[dict]:
    """Reviews of every customer, each in the order in which they bought."""
    per_family = len(shop) // len(FAMILIES)
    brands = per_family // TYPES_PER_FAMILY
    # A hobby leads to one of two others; fashion moves every quarter.
    leads_to = [[(f + 1) % len(FAMILIES), (f + 5) % len(FAMILIES)] for f in range(len(FAMILIES))]
    quarters = PERIOD_DAYS // 91 + 1
    fashion = [[generator.randrange(brands) for _ in range(quarters)] for _ in FAMILIES]
    seen: set[str] = set()
    occasional = max(users // 10, 1)
    for number in range(users + occasional):
        is_regular = number < users
        length = max(6, round(generator.gauss(events_per_user, events_per_user / 5))) if is_regular else 1
        if not is_regular:
            length += generator.randrange(3)
        reviewer = _new_key(generator, "A", 14, seen)
        bias = generator.gauss(0.0, 0.6)
        favorite = [generator.randrange(brands) for _ in FAMILIES]
        family, position = generator.randrange(len(FAMILIES)), 0
        brand = favorite[family]
        for day in _days(generator, length):
            item = shop[family * per_family + brand * TYPES_PER_FAMILY + position]
            yield _review(generator, item, reviewer, bias + (0.4 if brand == favorite[family] else 0.0), day)
            hot = fashion[family][day // 91]
            draw = generator.random()
            if position == TYPES_PER_FAMILY - 1:
                if draw < 0.15:
                    continue  # used up: the same again
                family = leads_to[family][0 if draw < 0.75 else 1]
                position = 0
                brand = favorite[family] if generator.random() < 0.5 else fashion[family][day // 91]
            elif draw < _P_COMPLEMENT:
                position += 1
            elif draw < _P_COMPLEMENT + _P_IN_FASHION:
                position, brand = position + 1, hot
            elif draw < _P_COMPLEMENT + _P_IN_FASHION + _P_AHEAD:
                position = min(position + 2, TYPES_PER_FAMILY - 1)
            else:
                family = generator.randrange(len(FAMILIES))
                position, brand = 0, favorite[family]


def _days(generator: random.Random, length: int) -> list[int]:
    """Days of purchase, ascending; about one in eight falls on the day of the one before."""
    step = PERIOD_DAYS / (length + 1)
    days: list[int] = []
    for index in range(length):
        day = min(int((index + generator.random()) * step), PERIOD_DAYS - 1)
        if days and generator.random() < 0.1:
            day = days[-1]
        days.append(max(day, days[-1] if days else 0))
    return days


def _review(generator: random.Random, item: SampleItem, reviewer: str, liking: float, day: int) -> dict:
    stars = min(5, max(1, round(4.0 + liking + item.quality + generator.gauss(0.0, 0.6))))
    time = int(FIRST_DAY.timestamp()) + day * DAY
    kind = item.kind.replace("&amp;", "and").lower()
    text = OPENINGS[stars].format(kind=kind, brand=item.brand_name) + " " + generator.choice(DETAILS[stars])
    review = {
        "overall": float(stars),
        "verified": generator.random() < 0.9,
        "reviewTime": datetime.fromtimestamp(time, UTC).strftime("%m %d, %Y"),
        "reviewerID": reviewer,
        "asin": item.asin,
        "reviewText": text,
        "summary": generator.choice(SUMMARIES[stars]),
        "unixReviewTime": time,
    }
    if generator.random() < 0.02:
        del review["reviewText"]
    if generator.random() < 0.05:
        review["vote"] = str(generator.randrange(2, 40))
    if generator.random() < 0.1:
        review["style"] = {"Color:": generator.choice((" Black", " White", " Green"))}
    return review


def _with_duplicates(generator: random.Random, reviews: list[dict]) -> list[dict]:
    """About one review in two hundred stands twice, one line after the other."""
    doubled: list[dict] = []
    for review in reviews:
        doubled.append(review)
        if generator.random() < 0.005:
            doubled.append(review)
    return doubled


def _metadata_row(generator: random.Random, shop: list[SampleItem], item: SampleItem) -> dict:
    family_name = FAMILIES[item.family][0]
    per_family = len(shop) // len(FAMILIES)
    start = item.family * per_family + item.brand * TYPES_PER_FAMILY
    row: dict = {
        "category": ["Hobby &amp; Home", family_name],
        "description": [f"{item.kind} by {item.brand_name} for {family_name.lower()}."],
        "title": item.title,
        "also_buy": [other.asin for other in shop[start : start + TYPES_PER_FAMILY] if other is not item],
        "brand": item.brand_name if generator.random() < 0.97 else "",
        "feature": [],
        "main_cat": "Hobby & Home",
        "price": f"${generator.randrange(400, 20000) / 100:.2f}",
        "asin": item.asin,
    }
    if item.title is None:
        del row["title"]
    return row


def _new_key(generator: random.Random, prefix: str, length: int, seen: set[str]) -> str:
    while True:
        key = prefix + "".join(generator.choice(_ALPHABET) for _ in range(length - len(prefix)))
        if key not in seen:
            seen.add(key)
            return key


def _write_lines(path: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
