"""Measure rankings against labels, with confidence intervals. This package knows ids and numbers, no model."""

from looktwice.evaluate.bootstrap import Interval, difference, interval
from looktwice.evaluate.measures import Measure, Result, measure
from looktwice.evaluate.trec import Qrels, Run, read_qrels, read_run, write_run

__all__ = [
    "Interval",
    "Measure",
    "Qrels",
    "Result",
    "Run",
    "difference",
    "interval",
    "measure",
    "read_qrels",
    "read_run",
    "write_run",
]
