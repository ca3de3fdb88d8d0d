"""A small artifact directory."""

from pathlib import Path

from latentrec.storage import ArtifactWriter


def make_artifact(output: Path, text: str, kind: str = "dataset") -> Path:
    """A finished artifact of two files, one of them in a subfolder."""
    with ArtifactWriter(output, kind, {"text": text}) as writer:
        (writer.path / "sub").mkdir()
        for name in ("a.parquet", "sub/b.parquet"):
            (writer.path / name).write_text(f"{text} {name}")
    return output
