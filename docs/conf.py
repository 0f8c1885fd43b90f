"""The documentation site: Sphinx over the Markdown of this repository. Build it with `make docs`.

The source folder is the repository's root, so that a link means the same here and in the repository. Nothing is
fetched, neither at build time nor by a reader's browser.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "shared", "vendor_api", "client")]

import reference_pages  # noqa: E402

project = "VL2V"
author = "the VL2V authors"
project_copyright = "the VL2V authors, Apache-2.0"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["docs/**.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"]
exclude_patterns = ["[!A-Zd]*", "d[!o]*", "**/.*"]  # folders that are not read at all
root_doc = "docs/index"
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages, whose pages are not here

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"VL2V {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False


def setup(app: object) -> None:
    """Fill the pages of the reference, and lead the site's address to its first page."""
    app.connect("source-read", reference_pages.fill)  # type: ignore[attr-defined]
    app.connect("build-finished", reference_pages.write_first_page)  # type: ignore[attr-defined]
