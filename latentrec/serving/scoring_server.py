"""MLflow's scoring server, made fit to be exposed: documented JSON in, reasons out, no stack traces.

MLflow's own handler answers an error with the server's stack trace (paths included), echoes the whole input,
and parses CSV and Parquet that cannot hold a history. ``mlflow models serve`` loads the model before it
starts to listen, so the model puts this handler in the place of MLflow's; nothing else is changed.
"""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from latentrec.serving.request_schemas import MAX_ROWS, BadRequest, parse_parameters, parse_rows
from latentrec.tracking.mlflow_compat import is_scoring_server, replace_scoring_handler

MAX_BYTES = 16 << 20
FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
_logger = logging.getLogger(__name__)


def harden_scoring_server() -> bool:
    """Put :func:`answer` in the place of MLflow's handler; only inside a scoring server's process."""
    if is_scoring_server():
        replace_scoring_handler(answer, bounded_body)
        return True
    return False


async def bounded_body(request: Any) -> bytes:
    """A request's body, read no further than one byte past :data:`MAX_BYTES`.

    MLflow's server reads a body whole before any handler sees it; what is longer is cut here, and
    :func:`read_request` refuses it by its length.
    """
    if not hasattr(request, "_body"):
        parts, size = [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                break
        request._body = b"".join(parts)[: MAX_BYTES + 1]
    return request._body


def answer(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
    """Answer one POST to ``/invocations``: 200 with predictions, 400 or 415 with a reason, 500 with an id."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import InvocationsResponse, predictions_to_json

    if (content_type or "").split(";")[0].strip().lower() != "application/json":
        return _refusal(415, "UNSUPPORTED_MEDIA_TYPE", "send JSON with Content-Type: application/json")
    try:
        import pandas as pd

        rating = "target" in input_schema.input_names()
        records, params = read_request(data)
        parse_rows(records, rating=rating)
        if not rating:
            parse_parameters(params)
        if not records:
            return InvocationsResponse('{"predictions": []}', 200, "application/json")
        columns = [name for name in input_schema.input_names() if any(name in row for row in records)]
        frame = pd.DataFrame(
            {name: pd.Series([row.get(name) for row in records], dtype=object) for name in columns}
        )
        text = io.StringIO()
        predictions_to_json(model.predict(frame, params=params or None), text)
    except BadRequest as error:
        return _refusal(400, "BAD_REQUEST", str(error))
    except Exception as error:
        if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
            own = error.message.startswith("row ")
            message = error.message if own else "the request does not fit the model's signature"
            _logger.warning("refused: %s", error.message)
            return _refusal(400, "BAD_REQUEST", message)
        incident = uuid.uuid4().hex[:12]
        _logger.exception("incident %s", incident)
        message = f"the model failed; the server's log has it as incident {incident}"
        return _refusal(500, "INTERNAL_ERROR", message)
    return InvocationsResponse(response=text.getvalue(), status=200, mimetype="application/json")


def read_request(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Records and parameters of a request body.

    Raises:
        BadRequest: not JSON, too big, none or several of the four formats, or a shape that is none of theirs.
    """
    if len(data) > MAX_BYTES:
        raise BadRequest(f"the body has more than {MAX_BYTES} bytes, which is the most that is taken")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected an object")
    formats = [name for name in FORMATS if name in body]
    if len(formats) != 1:
        raise BadRequest(f"the body must have exactly one of {', '.join(FORMATS)}")
    unknown = sorted(set(body) - {*FORMATS, "params"})
    if unknown:
        raise BadRequest(f"unknown field {unknown[0][:80]!r}; beside the input there is only params")
    params = body.get("params")
    if params is not None and not isinstance(params, dict):
        raise BadRequest('params is no object; expected for example {"k": 10}')
    return _records(formats[0], body[formats[0]]), params


def _records(name: str, value: Any) -> list[dict[str, Any]]:
    if name == "dataframe_split":
        value = _from_split(value)
    elif name == "inputs" and isinstance(value, dict):
        value = _from_columns(value)
    if not isinstance(value, list):
        raise BadRequest(f'{name} is no list of rows; expected [{{"history": ["ITEM_KEY", …]}}, …]')
    if len(value) > MAX_ROWS:
        raise BadRequest(f"more than {MAX_ROWS} rows in one request; send several")
    for number, row in enumerate(value):
        if not isinstance(row, Mapping):
            raise BadRequest(f"row {number} is no object with the field 'history'")
    return value


def _from_split(value: Any) -> list[dict[str, Any]]:
    columns, rows = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise BadRequest("dataframe_split needs 'columns' and 'data', both lists")
    if not all(isinstance(name, str) for name in columns):
        raise BadRequest("dataframe_split.columns has a name that is no text")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise BadRequest(f"dataframe_split.data: row {number} does not have {len(columns)} values")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _from_columns(value: dict[str, Any]) -> list[dict[str, Any]]:
    if not all(isinstance(column, list) for column in value.values()):
        raise BadRequest("inputs: every column must be a list with one entry a row")
    lengths = {len(column) for column in value.values()}
    if len(lengths) > 1:
        raise BadRequest("inputs: the columns differ in length")
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _refusal(status: int, code: str, message: str) -> Any:
    from mlflow.pyfunc.scoring_server import InvocationsResponse

    body = json.dumps({"error_code": code, "message": message})
    return InvocationsResponse(response=body, status=status, mimetype="application/json")
