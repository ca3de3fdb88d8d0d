"""Reports of an evaluation: self-contained HTML, Markdown and console tables."""
