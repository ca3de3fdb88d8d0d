"""Reading of review and metadata files: input files, formats, lines, events."""
