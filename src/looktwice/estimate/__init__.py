"""Estimate cost and size from config.json alone."""
