"""Look once to find candidates, look twice to rank them."""

__version__ = "0.1.0"
