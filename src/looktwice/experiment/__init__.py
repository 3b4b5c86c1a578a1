"""A benchmark run from files to figures: index, ask, look twice, measure; resumable at every query.

Joins datasets, tables and retrieval; prints nothing.
"""

from looktwice.experiment.run import Done, Plan, run_benchmark

__all__ = ["Done", "Plan", "run_benchmark"]
