"""A folder for PYTHONPATH, whose `sitecustomize` Python imports when it starts."""

FOLDER = __path__[0]

OVERRIDE = "HUB_OVERRIDE_TRANSFORMERS"
"""The environment variable that has hub build the names of Transformers as well."""
