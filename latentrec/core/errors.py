"""The two exceptions that a command turns into an exit code of its own."""

from typing import Any

from latentrec.core.error_codes import UNSPECIFIED
from latentrec.core.redact import redact

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 143


class UserError(ValueError):
    """The input or the configuration is wrong, and the user can correct it.

    The message names the file, line or field, the value, and the cure. A command that meets this error
    prints the message without a traceback and exits with code 2; nothing half-written stays behind. Secrets
    of the locations in it (a signed URL's query, a URL's password) are taken out here.

    Attributes:
        code: what is wrong, one of :data:`~latentrec.core.error_codes.ERROR_CODES`; it stays when the message
            is reworded.
    """

    def __init__(self, *arguments: Any, code: str = UNSPECIFIED):
        super().__init__(*(redact(a) if isinstance(a, str) else a for a in arguments))
        self.code = code


class Interrupted(RuntimeError):
    """Work stopped on a signal after a checkpoint was saved. A command exits with code 143."""
