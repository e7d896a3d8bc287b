"""The documentation site: ``scripts/docs``, or ``python -m sphinx docs docs/_build``."""

from bcos_vit import __version__

project = "bcos-pathology"
author = "The bcos-pathology authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["toc.not_included"]  # decisions are listed by their own page
html_theme = "furo"
html_title = f"bcos-pathology {release}"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "colon_fence"]
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
napoleon_custom_sections = ["Source"]
