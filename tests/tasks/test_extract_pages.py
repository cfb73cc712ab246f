"""Whole pages to the letter, as text and as Markdown. The pages are made up; what is expected of each lies beside it.

Whoever changes what comes out looks at every difference here, and raises the version of the stage.
"""

from pathlib import Path

import pytest

from tasks.extract.content import main_text

PAGES = Path(__file__).with_name("pages")


@pytest.mark.parametrize("ending", ["txt", "md"])
@pytest.mark.parametrize("name", sorted(path.stem for path in PAGES.glob("*.html")))
def test_page(name, ending):
    html = (PAGES / f"{name}.html").read_text(encoding="utf-8")
    page = main_text(html, engine="gristmill", search=True, comments=False, markdown=ending == "md")
    assert page.text + "\n" == (PAGES / f"{name}.{ending}").read_text(encoding="utf-8")
