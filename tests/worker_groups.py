"""Which tests run on one worker, and in which order: a file's tests together, a few folders as a whole.

A file's module fixtures, and a folder's session fixtures, are then made once. pytest-xdist's own way
(``--dist loadgroup`` and marks ``xdist_group``) does nothing under pytest 9.2: it writes the group into
``item._nodeid``, which pytest no longer reads, so each of three workers trained, ran the pipeline and started
the server for itself.
"""

from xdist.scheduler.loadscope import LoadScopeScheduling

FOLDERS = ("serving", "tracking", "registry", "training/rating")
"""Folders of ``tests`` whose session fixtures are dear."""

FIRST = (
    "tests/pipeline/test_run.py",
    "tests/serving",
    "tests/training/rating",
    "tests/training/latentr3/test_latentr3_training.py",
    "tests/training/latentr3/test_latentr3_distributed.py",
    "tests/training/latentr3/test_latentr3_killed.py",
    "tests/pipeline/test_rating_run.py",
    "tests/tracking",
    "tests/registry",
    "tests/manifests/test_mlflow_starts.py",
    "tests/data/test_properties.py",
    "tests/evaluation/test_evaluate.py",
    "tests/fuzz/test_fuzz.py",
)
"""What takes longest: begun first, so that no worker is left with it at the end."""


def group_of(nodeid: str) -> str:
    """The folder or file that a test runs with, as a path from the checkout's root.

    >>> group_of("tests/serving/test_odd_requests.py::test_a[1]"), group_of("tests/test_layers.py::test_b")
    ('tests/serving', 'tests/test_layers.py')
    """
    path = nodeid.partition("::")[0]
    return next((f"tests/{name}" for name in FOLDERS if path.startswith(f"tests/{name}/")), path)


def longest_first(items: list) -> None:
    """Sort collected tests in place by the place of their group in ``FIRST``; the rest stays as it is."""
    items.sort(key=lambda item: FIRST.index(g) if (g := group_of(item.nodeid)) in FIRST else len(FIRST))


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups, in the order of collection."""

    def __init__(self, config, log=None):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
