"""What every layer needs: errors with exit codes, validated configurations, progress."""

from latentrec.core.config import Config, config_from_dict
from latentrec.core.config_flags import add_config_arguments, config_from_namespace
from latentrec.core.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Interrupted, UserError
from latentrec.core.progress import progress

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INTERRUPTED",
    "Config",
    "Interrupted",
    "UserError",
    "add_config_arguments",
    "config_from_dict",
    "config_from_namespace",
    "progress",
]
