"""The version, read by pyproject.toml without importing: it must stay a literal."""

__version__ = "0.1.0"
