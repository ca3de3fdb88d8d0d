"""A run's input files: that they are there and can be read, by the parameters that name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.steps.parameters import REVIEWS, locations

_HEAD_BYTES = 1 << 18


def check_inputs(reviews: Any, metadata: Any = None) -> str:
    """Check that the inputs exist and are of a format that data preparation reads; fingerprint them.

    Raises:
        UserError: a location is empty, absent, damaged at its head, or of no known format.
    """
    from latentrec.data.reading.input_files import fingerprint_inputs

    given = listed(reviews), listed(metadata)
    if not given[0]:
        raise UserError(
            f"{REVIEWS} is empty; give a path, a gs:// or an https:// location of a review file",
            code="config.missing_value",
        )
    recognize_inputs(*given)
    return fingerprint_inputs(*given)


def recognize_inputs(reviews: tuple[str, ...], metadata: tuple[str, ...]) -> list[str]:
    """Names of the formats of every input, from the first lines of each or the schema of a table.

    Data preparation recognizes the same.

    Raises:
        UserError: an input is missing, empty, damaged at its head or of no known format.
    """
    from latentrec.data.reading.byte_streams import ParquetFoundError
    from latentrec.data.reading.formats import recognize_reviews
    from latentrec.data.reading.input_files import find_inputs, read_blocks, recognized
    from latentrec.data.reading.metadata import recognize_metadata
    from latentrec.data.reading.parquet_metadata import recognize_metadata_table
    from latentrec.data.reading.parquet_reviews import recognize_review_table

    names = []
    for uris, recognize, recognize_table in (
        (reviews, recognize_reviews, recognize_review_table),
        (metadata, recognize_metadata, recognize_metadata_table),
    ):
        for file in find_inputs(uris):
            try:
                names.append(recognized(read_blocks(file, _HEAD_BYTES), file.uri, recognize)[0].name)
            except ParquetFoundError:
                names.append(recognize_table(file))
    return names


def check_boxes(boxes: Mapping[str, tuple[str, ...]]) -> str:
    """:func:`check_inputs`, whose errors begin with the parameter that names the location."""
    try:
        return check_inputs(*boxes.values())
    except UserError as error:
        name = next((box for box, given in boxes.items() if any(one in str(error) for one in given)), "")
        if not name or str(error).startswith(name):
            raise
        raise UserError(f"{name}: {error}", code=error.code) from None


def listed(value: Any) -> tuple[str, ...]:
    """Locations in a text with commas between them, or as they are."""
    return locations(value) if isinstance(value, str | None) else tuple(value)
