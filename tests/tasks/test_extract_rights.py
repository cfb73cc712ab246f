"""What a page says about its own use."""

import pytest
from archives import members, response, write
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract import Extract, documents
from tasks.extract.rights import AI_AGENTS, SIGNALS, rights_signals

ROBOTS = "x-robots-tag"


@pytest.mark.parametrize(("html", "headers", "found"), [
    ('<meta name="robots" content="noindex, NoAI">', [], "noai noindex"),
    ("<META CONTENT='noimageai' NAME='Robots'>", [], "noimageai"),
    ("<Meta name=robots content=noai>", [], "noai"),
    ('<meta name="robots" content="noai noimageai">', [], "noai noimageai"),
    ('<meta\n  name = "robots"\n  content = "noai"\n/>', [], "noai"),
    ('<meta name="robots" value="noarchive">', [], "noarchive"),
    ('<meta property="robots" content="noai">', [], "noai"),
    ('<meta http-equiv="X-Robots-Tag" content="noai">', [], "noai"),
    ('<meta name="robots" content="index, follow, max-image-preview:large">', [], ""),
    ('<meta name="description" content="noai robots">', [], ""),
    ('<meta data-name="robots" content="noai" name="x">', [], ""),
    ('<!-- <meta name="robots" content="noai"> -->', [], ""),
    ('<!-- a --><meta name="robots" content="noai"><!-- b -->', [], "noai"),
    ("<style>" + "x" * 100_000 + '</style><meta name="robots" content="noai"></head>', [], "noai"),
    ('<meta name="robots" content="noai', [], ""),                                       # never closed
    # for one agent
    ('<meta name="GPTBot" content="noindex">', [], "noai noindex"),
    ('<meta name="google-extended" content="none">', [], "noai none"),
    ('<meta name="googlebot" content="noindex">', [], "noindex"),
    ('<meta name="ccbot" content="nofollow">', [], ""),
    ('<meta name="otherbot" content="noai, noindex">', [], ""),
    ("", [(ROBOTS, "googlebot: noindex"), (ROBOTS, "noai")], "noai noindex"),
    ("", [(ROBOTS, "gptbot: noai")], "noai"),
    ("", [(ROBOTS, "otherbot: noindex, nofollow, GPTBot: noimageai")], "noimageai"),
    ("", [(ROBOTS, "otherbot: noindex, nofollow")], ""),
    ("", [(ROBOTS, "max-snippet: 20, noarchive")], "noarchive"),
    ("", [(ROBOTS, "unavailable_after: Sat, 25 Jun 2010 15:00:00 GMT, noindex")], "noindex"),
    ("", [(ROBOTS, "*: none")], "none"),
    ("", [(ROBOTS, "")], ""),
    ("", [("robots", "noai")], ""),
    # text and data mining
    ('<meta name="tdm-reservation" content="1">', [], "tdm-reservation"),
    ('<meta name="tdm-reservation" content="0">', [], ""),
    ("", [("tdm-reservation", " 1 ")], "tdm-reservation"),
    ('<meta name="tdm-reservation" content="0">', [("tdm-reservation", "1")], ""),      # the page's own comes first
    ('<meta name="tdm-reservation" content="1">', [("tdm-reservation", "0")], "tdm-reservation"),
    ("", [("content-usage", "train-ai=n, search=y")], "notrain"),
    ("", [("content-usage", "train-ai=y")], ""),
    # licences
    ('<a rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">', [], "cc-by-sa-4.0 license"),
    ('<a rel="nofollow license" href="/terms">', [], "license"),
    ("<link rel = license href=/terms>", [], "license"),
    ('<A REL="License" HREF="/terms">', [], "license"),
    ('<a rel="licensed">', [], ""),
    ("<style>" + "x" * 100_000 + '</style></head><meta name="robots" content="noai">', [], ""),
    ('<a rel="no-license" href="/terms">', [], ""),
    ("all about the driving license, the rel of license", [], ""),
    ("https://creativecommons.org/publicdomain/zero/1.0/", [], "cc0-1.0"),
    ("//creativecommons.org/publicdomain/mark/1.0/deed.de", [], "pdm-1.0"),
    (r'{"license":"https:\/\/creativecommons.org\/licenses\/by\/3.0\/de\/"}', [], "cc-by-3.0"),
    ("http://creativecommons.org/licenses/by-nd-nc/1.0/", [], "cc-by-nc-nd-1.0"),
    ("http://creativecommons.org/licenses/by/4.0 http://creativecommons.org/licenses/by-nc/2.0/", [],
     "cc-by-4.0 cc-by-nc-2.0"),
    ("http://creativecommons.org/licenses/ http://creativecommons.org/about", [], ""),
    ("", [("link", '<https://creativecommons.org/licenses/by/4.0/>; rel="license"')], "cc-by-4.0 license"),
    ("", [("link", '</x>; rel="next"')], ""),
])
def test_signals(html, headers, found):
    assert rights_signals(html.encode(), headers) == found.split()


@given(st.binary(max_size=300), st.text(max_size=60))
def test_anything_can_be_read(html, value):
    meta = b'<meta name="robots" content="' + html
    for signal in rights_signals(meta, [("x-robots-tag", value), ("link", value), ("tdm-reservation", value)]):
        assert signal in {*SIGNALS, "tdm-reservation", "license"} or signal.startswith(("cc", "pdm"))


@pytest.mark.parametrize("agent", sorted(AI_AGENTS))
def test_every_agent_is_found_in_an_element(agent):
    assert rights_signals(f'<meta name="{agent}" content="noindex">'.encode(), []) == ["noai", "noindex"]


def test_a_document_carries_what_its_headers_say(tmp_path):
    split = write(tmp_path, members(response(1, X_Robots_Tag="gptbot: noai"), response(2), response(
        3, b"A text, and nothing else.", content_type="text/plain", TDM_Reservation="1")))
    assert documents(split, Extract()).table["rights"].to_pylist() == [["noai"], [], ["tdm-reservation"]]
