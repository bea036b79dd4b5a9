"""A hook of MkDocs: documents outside of ``docs`` that a page links to become pages too, and links lead to them."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
NAMES = {"README.md": "readme.md"}
"""Addresses of files that would otherwise take the place of a page in ``docs``."""
START = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "experiments/README.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Gives headings the anchors that GitHub gives them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents in ``START`` and every file of the repository that a page links to."""
    root = _root(config)
    pages = [path for path in (root / config.docs_dir).rglob("*.md")]
    seen = set(pages)
    pages += [root / name for name in START]
    while pages:
        path = pages.pop()
        if path not in seen:
            files.append(File.generated(config, _address(path, root), abs_src_path=str(path)))
            seen.add(path)
        if path.suffix == ".md":
            targets = {_target(link, path) for link, _ in LINK.findall(path.read_text(encoding="utf-8"))}
            pages += [t for t in targets - seen if t.is_file() and not t.is_relative_to(root / "docs")]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces links between files by links between their addresses on the site."""
    root = _root(config)
    source = page.file.abs_src_path
    if source is None:
        return markdown

    def replace(match: re.Match[str]) -> str:
        path = _target(match[1], Path(source))
        if "://" in match[1] or not path.is_file():
            return match[0]
        address = posixpath.relpath(_address(path, root), posixpath.dirname(page.file.src_uri) or ".")
        return f"]({address}{match[2] or ''})"

    return LINK.sub(replace, markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).resolve().parent


def _target(link: str, source: Path) -> Path:
    """Returns the file that a link in another file leads to."""
    return Path(posixpath.normpath(source.parent / link))


def _address(path: Path, root: Path) -> str:
    """Returns the address of a file of the repository on the site, relative to the site's root."""
    folder = root / "docs"
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    address = path.relative_to(root).as_posix()
    return NAMES.get(address, address)
