"""Run a benchmark from files to figures: index, search, rerank, measure; resumable at every query.

This package joins datasets, tables and retrieval, and prints nothing.
"""

from looktwice.experiment.run import Done, Plan, run_benchmark

__all__ = ["Done", "Plan", "run_benchmark"]
