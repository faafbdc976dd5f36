"""What the project's own files promise one another."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    "run": ["build"],
    "dev": ["build", "test", "lint"],
    "serving": ["build", "serving"],
}
"""File in requirements/ -> the dependency groups that it pins, beside base, cpu and export."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement)[0] for requirement in requirements}


def wanted(groups: list[str]) -> set[str]:
    project = PYPROJECT["project"]
    extras = [project["optional-dependencies"][extra] for extra in ("cpu", "export")]
    grouped = [PYPROJECT["dependency-groups"][group] for group in groups]
    return set().union(*map(names, [project["dependencies"], *extras, *grouped]))


@pytest.mark.parametrize("file", PINS)
def test_every_dependency_is_pinned_by_hash(file: str) -> None:
    text = (ROOT / "requirements" / f"{file}.txt").read_text(encoding="utf-8")
    pinned = re.findall(
        r"^([a-z0-9-]+)==\S+(?: ;[^\\]*)? \\\n    --hash=sha256:", text, re.MULTILINE
    )
    assert wanted(PINS[file]) <= set(pinned)


@pytest.mark.parametrize("file", PINS)
def test_no_pin_names_an_index(file: str) -> None:
    text = (ROOT / "requirements" / f"{file}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    develop = readme.split("## Develop\n")[1]
    command = re.search(r"^    (.+)$", develop, re.MULTILINE)
    assert command is not None
    assert command[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/cli.md"]
)
def test_links_between_the_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    documents = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {document for document in documents if f"({document})" not in index} == set()


def test_the_exit_codes_stand_in_both_documents_alike() -> None:
    tables = []
    for document in ("README.md", "docs/cli.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        tables.append(re.findall(r"^\| (\d+) \|", text.split("| code |")[1], re.MULTILINE))
    assert tables[0] == tables[1] == ["0", "1", "2", "3", "4", "5", "6", "130", "143"]
