"""How Sphinx builds the site: `make docs`."""

import frostline

project = "frostline"
author = "the frostline authors"
version = release = frostline.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages of the repository that are no pages of the site are linked as files.
suppress_warnings = ["myst.xref_missing"]

html_theme = "furo"
html_title = "frostline"
html_static_path = ["_static"]
html_css_files = ["frostline.css"]
html_theme_options = {"navigation_with_keys": True}

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True
default_role = "code"
