"""Write one self-contained HTML file that shows the changes by the second look."""

from looktwice.report.report import write_report
from looktwice.report.views import QueryView, ResultView, paired

__all__ = ["QueryView", "ResultView", "paired", "write_report"]
