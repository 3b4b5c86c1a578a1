"""Adapters for other evaluation libraries."""
