"""The version of the core distribution; its metadata reads it from here."""

__version__ = "2026.11.0"
