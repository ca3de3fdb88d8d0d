"""Steps of a few lines, for tests of what runs them."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(install_kfp_package=False)
def found_content() -> NamedTuple("Found", [("fingerprint", str), ("content", str)]):  # type: ignore[valid-type]
    return ("f", "abc")  # type: ignore[return-value]


@dsl.component(install_kfp_package=False)
def known_content(known: str) -> NamedTuple("Known", [("known_content", str), ("more", int)]):  # type: ignore[valid-type]
    return (known, 1)  # type: ignore[return-value]


@dsl.component(install_kfp_package=False)
def trained(folder: str, content: str) -> None:
    with open(f"{folder}/trained", "w") as stream:
        stream.write(content)


@dsl.component(install_kfp_package=False)
def ended(folder: str) -> None:
    open(f"{folder}/ended", "w").close()


@dsl.component(install_kfp_package=False)
def refused() -> None:
    raise SystemExit(2)


@dsl.component(install_kfp_package=False)
def waits(folder: str) -> None:
    import time

    open(f"{folder}/waiting", "w").close()
    time.sleep(600)


@dsl.component(install_kfp_package=False)
def meets(folder: str, name: str, other: str, seconds: float) -> None:
    """Ends well only while ``other`` runs too."""
    import os
    import time

    open(f"{folder}/{name}", "w").close()
    print(f"{name} is here", os.environ.get("OMP_NUM_THREADS"))
    deadline = time.monotonic() + seconds
    while not os.path.exists(f"{folder}/{other}"):
        if time.monotonic() > deadline:
            raise SystemExit(1)
        time.sleep(0.05)


@dsl.component(install_kfp_package=False)
def refused_beside(folder: str) -> None:
    """Fails once the step ``waits`` runs."""
    import os
    import time

    while not os.path.exists(f"{folder}/waiting"):
        time.sleep(0.05)
    raise SystemExit(2)
