"""Models that run in this process: the reference path, the fast path, and families."""
