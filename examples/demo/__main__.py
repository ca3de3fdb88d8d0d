"""``make demo MODEL=models:/latentr3@champion``: a page on this machine to try a registered model."""

from __future__ import annotations

import argparse
import os

import gradio as gr

from examples.demo.models import load_stage
from examples.demo.page import build
from examples.demo.panels import STYLE
from latentrec.steps.status import exit_code_on_error


def main() -> None:
    """Load the models and serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--model", required=True, help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--port", type=int, default=7860, help="of the page, on 127.0.0.1")
    arguments = parser.parse_args()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    page = build(load_stage(arguments.model))
    # Fonts of the system: the page asks nothing of other hosts.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(server_name="127.0.0.1", server_port=arguments.port, theme=theme, css=STYLE, footer_links=[])


if __name__ == "__main__":
    with exit_code_on_error():
        main()
