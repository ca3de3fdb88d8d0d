"""Configuration of data preparation: every flag of ``latentrec data-prep``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from latentrec.core import UserError, config_to_dict, option

PAPER_PROFILE: dict[str, Any] = {
    "window_start": "2017-10-01",
    "window_end": "2018-11-01",
    "widen_months": 3,
    "min_items": 5000,
    "k_core": 5,
    "title_filter": "paper",
    "max_title_words": 20,
    "duplicates": "keep",
}
"""The published recipe of BIGRec, D3 and LatentR3 on Amazon 2018."""

NOT_IDENTITY = (
    "reviews",
    "metadata",
    "category",
    "category_year",
    "cache_dir",
    "previous",
    "max_volume_drop",
    "require_titles",
    "max_bad_share",
    "on_no_new_data",
)
"""Fields that say where things are or what to do with the result: they do not enter the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class DataPrepConfig:
    """What to read, which events to keep, and how to split them.

    Raises:
        UserError: a value is out of its range or two of them do not fit together.
    """

    reviews: tuple[str, ...] = option(
        (), help="review files: paths, folders, gs:// or https:// locations; plain, gzip or zstd"
    )
    metadata: tuple[str, ...] = option((), help="product metadata files, like --reviews; may be absent")
    category: str | None = option(
        None, help="fetch this category's public Amazon files instead, e.g. Musical_Instruments"
    )
    category_year: int = option(
        2018, choices=(2014, 2018, 2023), help="edition of the public files for --category"
    )
    cache_dir: str = option("runs/downloads", help="where files of --category are kept between runs")
    profile: str = option(
        "default",
        choices=("default", "paper"),
        help="'paper' sets the published window, widening, 5-core and title filter; other flags still count",
    )
    task: str = option(
        "next_item",
        choices=("next_item", "rating"),
        help="'rating' adds review texts, rows of the history and mean ratings of the training period",
    )
    window_start: str | None = option(None, help="first day kept, UTC, YYYY-MM-DD")
    window_end: str | None = option(None, help="first day no longer kept, UTC, YYYY-MM-DD")
    min_items: int = option(0, help="move window_start back until at least so many items remain")
    widen_months: int = option(3, help="months per move of --min-items")
    title_filter: str = option(
        "strict",
        choices=("strict", "paper", "none"),
        help="'strict' drops items without title or with HTML in it, 'paper' those with '<span id' or more "
        "than 20 words, 'none' keeps all",
    )
    max_title_words: int | None = option(None, help="drop items whose title is longer (none: no limit)")
    duplicates: str = option(
        "keep",
        choices=("keep", "drop"),
        help="exact repeats of user, item and time: keep as published, or keep the first",
    )
    require_titles: bool = option(False, help="fail unless every item has a title (models of text need it)")
    k_core: int = option(5, help="repeat until every user and every item has at least so many events")
    max_users: int | None = option(
        None, help="keep a seeded random subset of so many users, drawn after the k-core (none: all)"
    )
    max_history: int = option(10, help="events of a user's past that a sample carries at most")
    split: str = option(
        "temporal",
        choices=("temporal", "dates", "leave_one_out"),
        help="'temporal' 8:1:1 over samples by time; 'dates' at valid_start and test_start; 'leave_one_out' "
        "each user's last two",
    )
    valid_start: str | None = option(None, help="for --split dates: first day of validation, UTC")
    test_start: str | None = option(None, help="for --split dates: first day of test, UTC")
    skip_bad_lines: bool = option(False, help="drop and count lines that cannot be read instead of stopping")
    max_bad_share: float = option(0.01, help="with --skip-bad-lines: fail above this share of bad lines")
    previous: str | None = option(
        None, help="dataset directory or manifest of the run before: compares volume and novelty"
    )
    max_volume_drop: float = option(
        0.5, help="fail when fewer than (1 - this) of the previous dataset's interactions remain"
    )
    on_no_new_data: str = option(
        "continue",
        choices=("continue", "stop"),
        help="'stop': say so when the dataset is the previous one, so that training can be left out",
    )
    seed: int = option(42, help="of --max-users and of the examples drawn for the report")

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        for name in ("reviews", "metadata"):  # an empty flag or pipeline parameter names no file
            given = tuple(uri.strip() for uri in getattr(self, name) if uri.strip())
            object.__setattr__(self, name, given)
        if bool(self.reviews) == bool(self.category):
            raise UserError("data-prep needs either --reviews or --category (and not both)")
        for name, low in (("k_core", 1), ("max_history", 1), ("min_items", 0), ("widen_months", 1)):
            if getattr(self, name) < low:
                raise UserError(f"DataPrepConfig.{name} is {getattr(self, name)}, expected at least {low}")
        if self.max_users is not None and self.max_users < 1:
            raise UserError(f"DataPrepConfig.max_users is {self.max_users}, expected at least 1")
        if self.max_title_words is not None and self.max_title_words < 1:
            raise UserError(f"DataPrepConfig.max_title_words is {self.max_title_words}, expected at least 1")
        for name in ("max_bad_share", "max_volume_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"DataPrepConfig.{name} is {getattr(self, name)}, expected 0 to 1")
        days = {
            name: utc_seconds(value, name) for name in _DATES if (value := getattr(self, name)) is not None
        }
        for earlier, later in (("window_start", "window_end"), ("valid_start", "test_start")):
            if earlier in days and later in days and days[earlier] >= days[later]:
                raise UserError(
                    f"DataPrepConfig.{earlier} is {getattr(self, earlier)}, not before {later}, "
                    f"which is {getattr(self, later)}"
                )
        if self.split == "dates" and not ("valid_start" in days and "test_start" in days):
            raise UserError("--split dates needs --valid-start and --test-start")
        if self.split != "dates" and ("valid_start" in days or "test_start" in days):
            raise UserError(f"--valid-start and --test-start belong to --split dates, not to {self.split}")
        if self.on_no_new_data == "stop" and self.previous is None:
            raise UserError("--on-no-new-data stop needs --previous: there is nothing to compare with")

    def resolved(self) -> DataPrepConfig:
        """Apply the profile: its values replace those that were left at their default."""
        if self.profile != "paper":
            return self
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        left = {name: value for name, value in PAPER_PROFILE.items() if getattr(self, name) == defaults[name]}
        return dataclasses.replace(self, **left)

    def seconds(self, field: str) -> int | None:
        """A date field as UTC seconds; ``None`` where it is not set."""
        value = getattr(self, field)
        return None if value is None else utc_seconds(value, field)

    def identity(self) -> dict[str, object]:
        """The part of the configuration that decides the content: what enters the fingerprint."""
        values = config_to_dict(self)
        return {name: value for name, value in values.items() if name not in NOT_IDENTITY}


_DATES = ("window_start", "window_end", "valid_start", "test_start")


def utc_seconds(day: str, field: str) -> int:
    """Midnight UTC of ``YYYY-MM-DD`` as seconds since 1970.

    Raises:
        UserError: not such a date.
    """
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise UserError(f"DataPrepConfig.{field} is {day!r}, expected a day as YYYY-MM-DD") from None


def months_before(seconds: int, months: int) -> int:
    """The same day of the month (1 to 28 kept, later days become 28) so many months before, UTC."""
    date = datetime.fromtimestamp(seconds, UTC)
    index = date.year * 12 + date.month - 1 - months
    moved = datetime(index // 12, index % 12 + 1, min(date.day, 28), tzinfo=UTC)
    return int(moved.timestamp())
