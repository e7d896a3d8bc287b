"""What studies measured, as one page: intervals, tests, ranks and pictures."""

from pathology.benchmark.report.figures import write_figures
from pathology.benchmark.report.page import reading_markdown, table_markdown, write_page
from pathology.benchmark.report.pictures import Picture

__all__ = ["Picture", "reading_markdown", "table_markdown", "write_figures", "write_page"]
