"""Pure functions of ranks and ratings; bootstrap and paired tests."""
