"""How Sphinx builds these pages.

    python -m sphinx -W --keep-going -b html docs docs/_build/html
    python -m sphinx -W --keep-going -b doctest docs docs/_build/doctest

qcy must be importable: installed, or built in place. Nothing is fetched from anywhere.
"""

import doctest
import re
from importlib import import_module
from pathlib import Path

from sphinx.util import logging

from qcy import __version__

project = "qcy"
author = "The qcy developers"
project_copyright = "2026, The qcy developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "numpydoc",
]
exclude_patterns = ["_build", "performance/summary.md"]      # which another page includes
default_role = "py:obj"         # `name` in a docstring is a link if there is such a name
myst_heading_anchors = 3        # headings can be linked to, as on any viewer of Markdown

# ----------------------------------------------------------------------------- the API reference

#: Packages whose every public name must stand in the reference.
DOCUMENTED = ("qcy", "qcy.primitive", "qcy.nn")

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"      # numpydoc's sections tell types, shapes and units
add_module_names = False
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"

# ------------------------------------------------------------------------------------- doctests

doctest_default_flags = doctest.ELLIPSIS        # the messages of exceptions count
# Docstrings use the names of their own package, and the pages those of the quickstart.
doctest_global_setup = """
import numpy as np
import qcy
from qcy import *
from qcy.primitive import *
from qcy.nn import *
from qcy.nn.histogram import Histogram
"""

# ------------------------------------------------------------------------------------ appearance

html_theme = "alabaster"
html_title = f"qcy {release}"
html_theme_options = {
    "description": "Neural networks in 8 bits on any CPU",
    "fixed_sidebar": True,
    "page_width": "1060px",
    "sidebar_width": "230px",
}
html_copy_source = False
pygments_style = "friendly"


# --------------------------------------------------------------------------------------- checks

log = logging.getLogger(__name__)


def missing_names(app, env):
    """Warn of every public name that has no entry in the reference."""
    documented = env.get_domain("py").objects
    for package in DOCUMENTED:
        for name in import_module(package).__all__:
            full_name = f"{package}.{name}"
            if full_name not in DOCUMENTED and full_name not in documented:
                log.warning("%s is public, but docs/reference does not have it", full_name)


def missing_files(app, env):
    """Warn of every `path` of this repository that a page names and that is not there."""
    root = Path(app.srcdir).parent
    for page in sorted(env.found_docs):
        text = Path(env.doc2path(page)).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:qcy|tests|asv_benchmarks|docs)/[\w./-]+)`", text):
            if not (root / path).exists():
                log.warning("%s is not there", path, location=page)


def without_self(app, what, name, obj, options, signature, returns):
    """Show compiled methods, whose signatures begin with `self`, as others are shown."""
    found = re.match(r"\(self(?:, )?(.*)\)$", signature or "") if what == "method" else None
    return (f"({found[1]})", returns) if found else None


def setup(app):
    """Register the above."""
    app.connect("autodoc-process-signature", without_self, priority=0)      # before numpydoc
    app.connect("env-check-consistency", missing_names)
    app.connect("env-check-consistency", missing_files)
