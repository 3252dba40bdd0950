"""The documents: their links lead somewhere, and their commands are ones that the programs accept."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from experiment.launching.launch import check_words

ROOT = Path(__file__).parents[1]
GENERATED = {"docs/reference/keys.md", "docs/reference/presets.md"}  # by scripts/reference.py, for the site
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")]
PROGRAMS = {"train", "pretrain", "probe", "evaluate", "compare"}


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).strip().replace(" ", "-") for heading in headings
    }


def broken(page: Path) -> list[str]:
    found = []
    for target, anchor in re.findall(r"\]\(([^)\s:#]*)(?:#([^)\s]*))?\)", page.read_text()):
        goal = (page.parent / target).resolve() if target else page
        if goal.is_relative_to(ROOT) and goal.relative_to(ROOT).as_posix() in GENERATED:
            continue
        if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            found.append(f"{target}#{anchor}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[a](#a-heading) [b](#none) [c](gone.md) [d](page.md#a-heading) [e](https://e.org/x)\n"
    )
    assert broken(page) == ["#none", "gone.md#"]


@pytest.mark.parametrize("folder", ["docs", "results"])
def test_the_site_leads_to_every_page(folder: str) -> None:
    shown = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    base = ROOT / "docs" if folder == "docs" else ROOT
    assert {page.relative_to(base).as_posix() for page in (ROOT / folder).rglob("*.md")} <= shown


def commands() -> list[tuple[str, str]]:
    """Program and words of each command in a block of the user's pages, with the lines that continue it."""
    found = {}
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")]:
        text = page.read_text().replace("\\\n", " ")
        if shared := re.search(r'COMMON="(.*?)"', text, re.DOTALL):
            text = text.replace("$COMMON", " ".join(shared[1].split()))
        for program, words in re.findall(r"^(?: {4}|)(?:\$ )?python (\w+)\.py(.*)$", text, re.MULTILINE):
            if program in PROGRAMS and not re.search("import=|<", words):
                found[program, " ".join(shlex.split(words, comments=True))] = None
    return [*found]


@pytest.mark.parametrize(("program", "words"), commands(), ids=lambda text: text)
def test_a_command_is_accepted(program: str, words: str) -> None:
    given = [word for word in words.split() if word not in ("--help", "--cfg")]
    check_words("config" if program == "train" else program, given)


def test_a_wrong_command_is_found() -> None:
    with pytest.raises(SystemExit, match="2"):
        check_words("config", ["env=toy", "aux=rotatoin"])
