"""The served model: request schemas, recommendation service, pyfunc model, scoring server.

The served model loads this package in an environment that has only its own few requirements, so nothing is
imported here.
"""
