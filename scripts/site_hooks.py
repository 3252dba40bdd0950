"""Hooks of mkdocs: pages from outside of docs/, generated pages, and links that work in the repository and on the site.

Links are written as they are in the repository (`../results/pong.md` from docs/). On the site all pages lie in
one folder. A link to a file that is no page of the site becomes plain text.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def outside() -> dict[str, Path]:
    """Files of the repository by their place on the site, those that are not in docs/."""
    found = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    found += [*ROOT.glob("results/*.md"), *ROOT.glob("results/*.png"), *ROOT.glob("results/*.json")]
    return {path.relative_to(ROOT).as_posix(): path for path in found if path.is_file()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/ and the generated ones."""
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # here: mkdocs restores the path after it has loaded this module
    from reference import pages

    for place, path in outside().items():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn the repository's links into the site's."""
    place = page.file.src_uri
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else relink(part, place, files) for part in parts)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Turn the links of a notebook, which mkdocs does not see, into the site's."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def link(match: re.Match[str]) -> str:
        return f'href="{relative(match[1], page.file.src_uri).removesuffix(".md")}.html"'

    return re.sub(r'href="([^":#]+\.md)"', link, html)


def relink(markdown: str, place: str, files: Files) -> str:
    """The text with links between places of the site; a file of the repository that is no page loses its link."""

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        goal, source = destination(target, place)
        if files.get_file_from_path(goal) is None and (ROOT / source).exists():
            return text
        return f"{image}[{text}]({relative(target, place)}{anchor or ''})"

    return LINK.sub(link, markdown)


def destination(target: str, place: str) -> tuple[str, str]:
    """Where a link of the page at `place` leads to: on the site, and in the repository."""
    folder = posixpath.dirname(place if place in outside() else f"docs/{place}")
    source = posixpath.normpath(posixpath.join(folder, target))
    return "index.md" if source == "README.md" else source.removeprefix("docs/"), source


def relative(target: str, place: str) -> str:
    """The link from the page at `place`, on the site."""
    return posixpath.relpath(destination(target, place)[0], posixpath.dirname(place) or ".")
