"""A hook of MkDocs: MathJax shows the formulas, from a copy on the site, so that pages need no network."""

import json
from importlib.util import find_spec
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = "assets/mathjax"
SETTINGS = {
    "tex": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]]},
    # only what pymdownx.arithmatex has marked as a formula
    "options": {"ignoreHtmlClass": ".*", "processHtmlClass": "arithmatex", "enableMenu": False},
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lets every page load the settings and then the library."""
    config.extra_javascript += [f"{FOLDER}/settings.js", f"{FOLDER}/tex-svg.js"]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the two scripts: the package ``django-static-mathjax`` holds MathJax as its authors publish it."""
    package = find_spec("mathjax")
    if package is None or package.origin is None:
        raise FileNotFoundError("MathJax is missing: expected the package django-static-mathjax, of the group docs")
    library = Path(package.origin).parent / "static" / "mathjax" / "es5" / "tex-svg.js"
    files.append(File.generated(config, f"{FOLDER}/tex-svg.js", abs_src_path=str(library)))
    files.append(File.generated(config, f"{FOLDER}/settings.js", content=f"window.MathJax = {json.dumps(SETTINGS)};\n"))
    return files
