"""What studies measured, as one page: intervals, tests, ranks and pictures."""

from pathology.benchmark.report.markdown import reading_markdown, table_markdown
from pathology.benchmark.report.page import write_page
from pathology.benchmark.report.pictures import Picture
from pathology.benchmark.report.small_figures import write_figures

__all__ = ["Picture", "reading_markdown", "table_markdown", "write_figures", "write_page"]
