"""Configuration of data preparation: every flag of ``latentrec data-prep``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from latentrec.core import Config, UserError
from latentrec.core.config import NonNegativeInt, PositiveInt, Seed, Share

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

AFTER_FILTERS = ("window", "title", "duplicates", "k_core")
"""Counts of a dataset's manifest that say how many events a filter has left: none of duplicates, say."""


class DataPrepConfig(Config):
    """What to read, which events to keep, and how to split them.

    Raises:
        UserError: a value is out of its range or two of them do not fit together.
    """

    step_name: ClassVar[str] = "data_prep"

    reviews: tuple[str, ...] = Field(
        (),
        description="review files: paths, folders, gs:// or https:// locations; JSON lines or CSV (plain, "
        "gzip or zstd), or Parquet",
    )
    metadata: tuple[str, ...] = Field((), description="product metadata files, like --reviews; may be absent")
    category: str | None = Field(
        None, description="fetch this category's public Amazon files instead, e.g. Musical_Instruments"
    )
    category_year: Literal[2014, 2018, 2023] = Field(
        2018, description="edition of the public files for --category"
    )
    cache_dir: str = Field("runs/downloads", description="where files of --category are kept between runs")
    profile: Literal["default", "paper"] = Field(
        "default",
        description="'paper' sets the published window, widening, 5-core and title filter; other flags "
        "still count",
    )
    task: Literal["next_item", "rating"] = Field(
        "next_item",
        description="'rating' adds review texts, rows of the history and mean ratings of the training period",
    )
    window_start: str | None = Field(None, description="first day kept, UTC, YYYY-MM-DD")
    window_end: str | None = Field(None, description="first day no longer kept, UTC, YYYY-MM-DD")
    min_items: NonNegativeInt = Field(
        0, description="move window_start back until at least so many items remain"
    )
    widen_months: PositiveInt = Field(3, description="months per move of --min-items")
    title_filter: Literal["strict", "paper", "none"] = Field(
        "strict",
        description="'strict' drops items without title or with HTML in it, 'paper' those with '<span id' "
        "or more than 20 words, 'none' keeps all",
    )
    max_title_words: PositiveInt | None = Field(
        None, description="drop items whose title is longer (none: no limit)"
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep", description="exact repeats of user, item and time: keep as published, or keep the first"
    )
    require_titles: bool = Field(
        False, description="fail unless every item has a title (models of text need it)"
    )
    k_core: PositiveInt = Field(
        5, description="repeat until every user and every item has at least so many events"
    )
    max_users: PositiveInt | None = Field(
        None, description="keep a seeded random subset of so many users, drawn after the k-core (none: all)"
    )
    max_history: PositiveInt = Field(10, description="earlier events of the user in a sample, at most")
    split: Literal["temporal", "dates", "leave_one_out"] = Field(
        "temporal",
        description="'temporal' 8:1:1 over samples by time; 'dates' at valid_start and test_start; "
        "'leave_one_out' each user's last two",
    )
    valid_start: str | None = Field(None, description="for --split dates: first day of validation, UTC")
    test_start: str | None = Field(None, description="for --split dates: first day of test, UTC")
    skip_bad_lines: bool = Field(
        False, description="drop and count lines that cannot be read instead of stopping"
    )
    max_bad_share: Share = Field(
        0.01, description="with --skip-bad-lines: fail above this share of bad lines"
    )
    previous: str | None = Field(
        None, description="dataset directory or manifest of the run before: compares volume and novelty"
    )
    max_volume_drop: Share = Field(
        0.5, description="fail when fewer than (1 - this) of the previous dataset's interactions remain"
    )
    on_no_new_data: Literal["continue", "stop"] = Field(
        "continue",
        description="'stop': say so when the dataset is the previous one, so that training can be left out",
    )
    seed: Seed = Field(42, description="seed of --max-users and of the examples drawn for the report")

    @field_validator("reviews", "metadata")
    @classmethod
    def _drop_empty(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        """An empty flag or pipeline parameter names no file."""
        return tuple(uri.strip() for uri in uris if uri.strip())

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse options that contradict each other or lack one that they need."""
        if bool(self.reviews) == bool(self.category):
            raise UserError(
                "data-prep needs either --reviews or --category (and not both)", code="config.conflict"
            )
        days = {
            name: utc_seconds(value, name) for name in _DATES if (value := getattr(self, name)) is not None
        }
        for earlier, later in (("window_start", "window_end"), ("valid_start", "test_start")):
            if earlier in days and later in days and days[earlier] >= days[later]:
                raise UserError(
                    f"DataPrepConfig.{earlier} is {getattr(self, earlier)}, not before {later}, "
                    f"which is {getattr(self, later)}",
                    code="config.conflict",
                )
        if self.split == "dates" and not ("valid_start" in days and "test_start" in days):
            raise UserError("--split dates needs --valid-start and --test-start", code="config.missing_value")
        if self.split != "dates" and ("valid_start" in days or "test_start" in days):
            raise UserError(
                f"--valid-start and --test-start belong to --split dates, not to {self.split}",
                code="config.conflict",
            )
        if self.on_no_new_data == "stop" and self.previous is None:
            raise UserError(
                "--on-no-new-data stop needs --previous: there is nothing to compare with",
                code="config.missing_value",
            )
        return self

    def resolved(self) -> DataPrepConfig:
        """Apply the profile: its values replace those that were left at their default."""
        if self.profile != "paper":
            return self
        fields = type(self).model_fields
        left = {
            name: value
            for name, value in PAPER_PROFILE.items()
            if getattr(self, name) == fields[name].default
        }
        return self.replace(**left)

    def seconds(self, field: str) -> int | None:
        """A date field as UTC seconds; ``None`` where it is not set."""
        value = getattr(self, field)
        return None if value is None else utc_seconds(value, field)

    def identity(self) -> dict[str, object]:
        """The part of the configuration that decides the content: what enters the fingerprint."""
        return {name: value for name, value in self.to_dict().items() if name not in NOT_IDENTITY}


_DATES = ("window_start", "window_end", "valid_start", "test_start")


def utc_seconds(day: str, field: str) -> int:
    """Midnight UTC of ``YYYY-MM-DD`` as seconds since 1970.

    Raises:
        UserError: not such a date.
    """
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise UserError(
            f"DataPrepConfig.{field} is {day!r}, expected a day as YYYY-MM-DD", code="config.bad_value"
        ) from None


def months_before(seconds: int, months: int) -> int:
    """The same day of the month (1 to 28 kept, later days become 28) so many months before, UTC."""
    date = datetime.fromtimestamp(seconds, UTC)
    index = date.year * 12 + date.month - 1 - months
    moved = datetime(index // 12, index % 12 + 1, min(date.day, 28), tzinfo=UTC)
    return int(moved.timestamp())
