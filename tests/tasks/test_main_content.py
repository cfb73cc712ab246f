"""Pages in blocks, which of them are main content, and the text made of them."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.extract import extract, tags
from tasks.extract.blocks import N_BITS, N_PARENT, N_RUN, tokenize
from tasks.extract.content import clean, main_text
from tasks.extract.main_content import MODEL, judge, parse
from tasks.extract.markdown import render
from tasks.extract.text import CHARS, COMMAS, DIGITS, END, LINK_CHARS, LINKS, NODE, PARENT, START, STOPS, WORDS


def blocks(html):
    page = tokenize(html.encode())
    data = page.text.tobytes()
    return [data[b[START]:b[END]].decode() for b in page.blocks]


def whole(html, markdown=False):
    """The text of all blocks."""
    page = parse(html.encode())
    return render(page, np.arange(len(page.blocks)), markdown)


@pytest.mark.parametrize(("html", "found"), [
    ("<p>one<p>two", ["one", "two"]),                                       # optional end tags
    ("<div>a<div>b</div>c</div>", ["a", "b", "c"]),
    ("<ul><li>a<ul><li>b</ul><li>c</ul>d", ["a", "b", "c", "d"]),
    ("<dl><dt>a<dd>b<dt>c</dl>", ["a", "b", "c"]),
    ("<table><tr><td>a<td>b<tr><th>c</table>d", ["a", "b", "c", "d"]),
    ("<p>a <b>b</b> <i>c<u>d</u></i>e", ["a b cde"]),                       # inline elements break nothing
    ("  <p> a \n\t b&nbsp; c </p> ", ["a b c"]),                            # white space
    ("a<br>b<br/>\n<br>c", ["a\nb", "c"]),
    ("<p>a<hr>b", ["a", "b"]),
    ("<a>one</a><a>two</a><p><a>three</a>, four", ["one two", "three, four"]),
    ("<b><p>a</b>b</p>c", ["ab", "c"]),                                     # misnested
    ("<div><p>a</div></p></span>b", ["a", "b"]),
    ("<table><tr><td><div>a</table></div>b", ["a", "b"]),
    ("<td>a</div>b", ["a", "b"]),
    ("<!-- <p>x --> a <!--> b --> c", ["a b --> c"]),                       # comments
    ("a<!doctype html><?php x > b", ["a b"]),
    ("a <![CDATA[<b> & c]]> d", ["a <b> & c d"]),
    ("<script>if (a</b) '<p>x'</script>a<style>b</style><textarea>c</textarea>", ["a"]),
    ("<SCRIPT>x</ScRiPt >a", ["a"]),
    ("<script>never closed <p>a", []),
    ("<p title='>'>a<p title=\">\" hidden=no>b", ["a", "b"]),               # `hidden` marks, it does not cut
    ("a < b <3 & c<", ["a < b <3 & c<"]),
    ("&amp;&lt;p&gt;&eacute;&#233;&#xE9;&copy;&copy2 &nosuch; &AMP &#0;&#x110000;&#150;",
     ["&<p>\u00e9\u00e9\u00e9\u00a9\u00a92 &nosuch; & \ufffd\ufffd\u2013"]),
    ("<svg><title>x</title><text>x</text></svg>a<svg><p>b", ["a", "b"]),    # <p> ends SVG
    ("<select><option>x<option>y</select>a<template>c</template>", ["a"]),
    ("<span style='color:red; display : none'>x</span>a<i aria-hidden=true>x</i><span hidden>x</span>b", ["ab"]),
    ("<body style='display:none'>a", ["a"]),                                # lifted by scripts
    ("<p>a<button>b</button>c<label>d</label>", ["a", "b", "cd"]),
    ("", []), ("<", ["<"]), ("</", []), ("<p", []), ("&", ["&"]), ("<a href=", []),
])
def test_blocks(html, found):
    assert blocks(html) == found


def test_code_keeps_its_lines_and_indentation():
    code = "def f():\n\tif x &lt; 1:\n\n        return  1"
    assert blocks(f"<p>a<pre>\n{code}  \n</pre>b") == ["a", code.replace("&lt;", "<"), "b"]
    assert blocks("<pre><code><div>a</div><div>  b</div>c<br>d</code></pre>") == ["a\n  b\nc\nd"]


@pytest.mark.parametrize(("html", "text"), [
    ("<math><semantics><mi>x</mi><annotation encoding='application/x-tex'>{\\displaystyle x^2 &lt; 1}</annotation>"
     "</semantics></math>", "$x^2 < 1$"),
    ("<math alttext='\\frac{a}{b}'><mi>a</mi></math>", "$\\frac{a}{b}$"),
    ("<math><mfrac><mn>1</mn><mrow><mi>x</mi><mo>+</mo><mn>2</mn></mrow></mfrac></math>", "$\\frac{1}{x+2}$"),
    ("<math><msup><mi>x</mi><mn>2</mn></msup><mo>=</mo><msub><mi>y</mi><mi>i</mi></msub></math>", "$x^2=y_i$"),
    ("<math><munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover></math>", "$\\sum_i^n$"),
    ("<math><semantics><mi>x</mi><annotation-xml encoding='MathML-Content'><ci>x</ci></annotation-xml><annotation "
     "encoding='application/x-tex'>x</annotation></semantics></math>", "$x$"),
    ("<math><semantics><mi>x</mi><annotation encoding='text/plain'>plain</annotation></semantics></math>", "$x$"),
    ("<mml:math><mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:math>", "$x^2$"),
    ("<math><msup><mi>x</mi><mn>2</mn></msup></math><img class='math' alt='$x^{2}$'>", "$x^2$"),
    ("<math><mi>x</mi></math><math><mi>y</mi></math>", "$x$$y$"),
    ("<mjx-container class='MathJax' jax='CHTML'><mjx-math class='MJX-TEX' aria-hidden='true'><mjx-mi>q</mjx-mi>"
     "</mjx-math><mjx-assistive-mml><math><msqrt><mi>q</mi></msqrt></math></mjx-assistive-mml></mjx-container>",
     "$\\sqrt{q}$"),
    ("<span class='MathJax_Preview'></span><div class='MathJax_Display'><span class='MathJax'><span>q</span><span "
     "class='MJX_Assistive_MathML'><math><mi>q</mi></math></span></span></div><script type='math/tex; mode=display'>q"
     "</script>", "$q$"),
    ("<img class=latex alt='\\(q\\)'>", "\\(q\\)"), ("\\(q\\)", "\\(q\\)"),
    ("<img class='mwe-math-fallback' alt='a^2'>", "$a^2$"), ("<img class=tex alt='$a$'>", "$a$"),
    ("<img class=photo alt='a cat'>", ""),
    ("<script type='math/tex; mode=display'>a &= b</script>", "$a &= b$"),
    ("<span class='katex'><span class='katex-mathml'><math><semantics><mi>q</mi><annotation "
     "encoding='application/x-tex'>q</annotation></semantics></math></span><span class='katex-html' "
     "aria-hidden='true'>q</span></span>", "$q$"),
    ("<span class='mwe-math-element'><span style='display: none;'><math><semantics><mi>q</mi><annotation encoding="
     "'application/x-tex'>{\\displaystyle q}</annotation></semantics></math></span><img class='mwe-math-fallback' "
     "alt='{\\displaystyle q}'></span>", "$q$"),
    ("<span class='MathJax_Preview'>q</span><span class='MathJax'>q<math><mi>q</mi></math></span>"
     "<script type='math/tex'>q</script>", "$q$"),
])
def test_mathematics(html, text):
    assert " ".join(blocks(f"so {html} it is")) == f"so {text} it is".replace("  ", " ")


def test_a_formula_that_comes_again_later_stays():
    formula = "<math alttext='q'></math>"
    assert blocks(f"{formula}{formula} or {formula}") == ["$q$ or $q$"]


@pytest.mark.parametrize("between", ["<td>", "<tr><td>", "<li>", "<p>", "</p>", "<hr>", "<br><br>", "<div></div>"])
def test_equal_formulas_in_neighbouring_blocks_stay(between):
    zero, one = "<math><mn>0</mn></math>", "<math><mn>1</mn></math>"
    assert blocks(f"<table><tr><td>{between.join((zero, zero, one))}</table>") == ["$0$", "$0$", "$1$"]


@pytest.mark.parametrize(("one", "other", "alike"), [
    ("\\frac{1}{23}", "\\frac{12}{3}", False), ("x^{12}", "x^12", False), ("{a b}^2", "a b^2", False),
    ("\\{a\\}", "a", False), ("\\{a}", "{a}", False), ("\\alpha x", "\\alphax", False), ("x{}", "x", False),
    ("\\$", "\\", False), ("x\\", "x\\y", False), ("{x", "x", False), ("x}", "x", False), ("{{x}", "x}", False),
    ("x^{2}", "x ^ 2", True), ("{\\alpha }_{ é}", "\\alpha_é", True), ("\\mathbf{v}", "\\mathbf v", True),
    ("$x$", "x", True), ("\\frac{a+b}{2}", "\\frac {a + b} 2", True), ("\\sqrt{\\{}", "\\sqrt\\{", True),
])
def test_formulas_that_are_alike_are_told_once(one, other, alike):
    for first, second in ((one, other), (other, one)):
        found = blocks(f"<math alttext='{first}'></math><math alttext='{second}'></math>")[0]
        assert found == (f"${first}$" if alike else f"${first}$${second}$").replace("$$x$$", "$x$")


def test_what_is_counted():
    page = tokenize("<p class=x>Ab, <a href=x>cd 12</a>. 日本語、です。</p>".encode())
    block = page.blocks[0]
    assert [block[c] for c in (WORDS, LINKS, DIGITS, COMMAS, STOPS, LINK_CHARS)] == [4, 1, 2, 2, 2, 5]
    assert block[CHARS] == 4 + 5 + 2 + 2 * 7


@pytest.mark.parametrize("length", range(20))
def test_every_place_of_the_last_tag(length):
    """The search for a byte goes by many at a time."""
    assert blocks("x" * length + "<p>a<") == ["x" * length, "a<"][not length:]
    assert blocks("<!--" + "x" * length) == blocks("<p title='" + "x" * length) == []


def test_elements_around():
    page = parse(b"<nav>a</nav><main><article><div hidden><p>b</div><div id=comments><p>c</div><p>d<p>e<p>f")
    bits = page.nodes[page.blocks[:, NODE], N_BITS]
    inside = tags.IN_MAIN | tags.IN_ARTICLE
    assert bits.tolist() == [tags.IN_NAV, inside | tags.IN_HIDDEN, inside | tags.IN_COMMENT, inside, inside, inside]
    assert page.nodes[page.blocks[-1][PARENT], N_RUN] == 3
    assert tokenize(b"<div role=navigation>a").nodes[1, N_BITS] == tags.IN_NAV


def test_known_names_do_not_collide():
    for keys, values, names in ((tags.TAG_KEYS, tags.TAG_VALUES, tags.TAGS[1:] + list(tags.ALIASES)),
                                (tags.ATTRIBUTE_KEYS, tags.ATTRIBUTE_VALUES, list(tags.ATTRIBUTES)[1:])):
        assert np.count_nonzero(keys) == len(names)
        assert len(set(values[keys > 0].tolist())) == len(set(names) - tags.ALIASES.keys())


TABLE = "<table><tr><th>mill<th>stones<tr><td>upper<td>4 | 5<tr><td>lower<td>2</table>"
LISTS = "<p>We need:<ul><li>grain<ul><li>rye<li>wheat</ul><li><p>water<p>much of it</ul><ol><li>fill<li>grind</ol>so"


def test_text():
    assert whole(TABLE) == "mill\tstones\nupper\t4 | 5\nlower\t2"
    assert whole(LISTS) == ("We need:\n\n- grain\n  - rye\n  - wheat\n- water\nmuch of it\n\n1. fill\n2. grind\n\nso")
    assert whole("<h1>A</h1><p>b<blockquote>c</blockquote><pre>\n d</pre>") == "A\n\nb\n\nc\n\n d"


def test_markdown():
    assert whole(TABLE, True) == "| mill | stones |\n| --- | --- |\n| upper | 4 \\| 5 |\n| lower | 2 |"
    assert whole("<h1>A\n<br>b</h1><h3>c</h3>d<blockquote>e<br>f</blockquote><pre>\n  g\nh</pre>", True) == (
        "# A b\n\n### c\n\nd\n\n> e\n> f\n\n```\n  g\nh\n```")
    assert "- water\n\n  much of it" in whole(LISTS, True) and "1. fill\n2. grind" in whole(LISTS, True)


def test_a_table_that_is_the_layout_keeps_its_paragraphs():
    long = "The mill stood by the river for a hundred years before the railway came. " * 6
    assert whole(f"<table><tr><td>menu<td><p>{long}<p>{long}</table>") == f"menu\n\n{long.strip()}\n\n{long.strip()}"


SENTENCES = ("The mill by the river has ground grist for farmers since long before the railway came to the valley.",
             "In a dry summer its wheel stood still, and the miller told stories instead of grinding.",
             "His daughter kept the books, and she wrote down every sack that came and every sack that went.")
PAGE = f"""<html><head><title>The mill | Valley News</title><style>p {{}}</style></head><body class="home">
<header class="site-header"><a href="/">Valley News</a><nav class="menu"><ul><li><a href="/a">Home</a><li><a href="/b">
Sport</a><li><a href="/c">Weather</a><li><a href="/d">Contact</a></ul></nav></header>
<div class="cookie-banner" role="dialog"><p>We use cookies to improve your experience. By continuing you accept our
<a href="/privacy">privacy policy</a>.</p><button>Accept all</button></div>
<main><article class="post entry-content"><h1>The mill</h1>
<p>{SENTENCES[0]}</p><h2>Dry summers</h2><p>{SENTENCES[1]}</p>
<ul><li>The upper stone turns, and the lower stone lies.</li><li>The wheel needs water, and a good deal of it.</li></ul>
<pre>while water:
    grind()</pre><p>{SENTENCES[2]}</p></article>
<div class="share-buttons"><a href="#">Share</a> <a href="#">Tweet</a></div>
<section id="comments" class="comments"><h3>2 comments</h3><div class="comment"><p>My grandfather was the last
miller of this valley, and he told the same stories to all of us.</p></div></section></main>
<aside class="sidebar related-posts"><h3>Related posts</h3><ul><li><a href="/1">The bridge</a><li>
<a href="/2">The inn</a></ul></aside><footer class="site-footer"><p>Copyright 2024 Valley News. All rights reserved.</p>
<a href="/terms">Terms</a></footer></body></html>"""


def read(html, **chosen):
    return main_text(html, **({"engine": "gristmill", "search": True, "comments": False} | chosen))


def test_the_article_and_nothing_else():
    page = read(PAGE)
    assert page.title == "The mill | Valley News"
    assert all(sentence in page.text for sentence in SENTENCES) and "while water:\n    grind()" in page.text
    assert "- The upper stone turns" in page.text and "Dry summers" in page.text
    for other in ("cookies", "Accept", "Sport", "Share", "Related", "bridge", "Copyright", "Terms", "grandfather"):
        assert other not in page.text


def test_the_text_of_a_version():
    """Whoever changes what comes out changes this test, and raises the version of the stage: corpora are kept by it."""
    items = "- The upper stone turns, and the lower stone lies.\n- The wheel needs water, and a good deal of it."
    assert extract.version == 4
    assert read(PAGE).text == "\n\n".join(["The mill", SENTENCES[0], "Dry summers", SENTENCES[1], items,
                                           "while water:\n    grind()", SENTENCES[2]])
    assert read(PAGE, markdown=True, comments=True).text == "\n\n".join([
        "# The mill", SENTENCES[0], "## Dry summers", SENTENCES[1], items, "```\nwhile water:\n    grind()\n```",
        SENTENCES[2], "My grandfather was the last miller of this valley, and he told the same stories to all of us."])


def test_comments_when_they_are_asked_for():
    with_comments = read(PAGE, comments=True).text
    assert "My grandfather was the last miller" in with_comments and "2 comments" not in with_comments
    assert read(PAGE).text.splitlines() == [line for line in with_comments.splitlines() if "grandfather" not in line
                                            and "miller of this" not in line][:len(read(PAGE).text.splitlines())]


def test_hidden_text_is_left_out():
    secret = "<p>Nobody sees that the mill was sold, and to whom it was.</p>"
    for hidden in (f"<div hidden>{secret}</div>", f"<noscript>{secret}</noscript>"):
        assert "Nobody sees" not in read(PAGE.replace("<h2>", f"{hidden}<h2>")).text
    assert all(sentence in read(f"<div id=app></div><noscript>{PAGE}</noscript>").text for sentence in SENTENCES)
    assert all(sentence in read(f"<div style='display:none'>{PAGE}</div>").text for sentence in SENTENCES)


def test_a_page_of_little_gives_what_it_has():
    assert read("<p>x").text == "x" and read("just text").text == "just text" and read("").text == ""
    assert read("<script>x</script>").text == ""


def test_the_model_is_data():
    with np.load(MODEL, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "iuf" for name in arrays.files)


def test_nothing_is_kept_from_page_to_page():
    first = read(PAGE)
    read("<p>Another page altogether, about a bakery." * 50)
    assert read(PAGE) == first and judge(parse(PAGE.encode()))[0].tolist() == judge(
        parse(PAGE.encode()))[0].tolist()


MARKUP = st.lists(st.one_of(
    st.sampled_from(["<p>", "</p>", "<div class='a-b cD3' id=x>", "</div>", "<a href='x'>", "</a>", "<b>", "</b>",
                     "<li>", "<ul>", "</ul>", "<table>", "<tr>", "<td>", "</table>", "<pre>", "</pre>", "<br>",
                     "<script>",
                     "</script>", "<!--", "-->", "<svg>", "</svg>", "<math><mfrac>", "</math>", "<math alttext='x'>",
                     "&amp;", "&#x", "&eacute", "<h2>", "</h3>", "<select>", "<input>", "<span hidden>", "</span>", "<",
                     "<![CDATA[", "]]>", "\r\n", "\t", " ", "<title>", "<annotation encoding=tex>", "word ", "。",
                     "\xa0"]),
    st.text(max_size=8), st.binary(max_size=6)), max_size=60)


@given(MARKUP)
@example([b"\xc2"])
@example(["<pre>", b"\xe3\x80"])
@example(["<math alttext='x'>", "<"])
def test_anything_gives_text(parts):
    html = b"".join(part if isinstance(part, bytes) else part.encode("utf-8", "replace") for part in parts)
    page = parse(html)
    p, _ = judge(page)
    assert ((p >= 0) & (p <= 1)).all() and (page.blocks[:, END] > page.blocks[:, START]).all()
    assert (page.nodes[1:, N_PARENT] < np.arange(1, len(page.nodes))).all()
    for markdown in (False, True):
        text = read(html.decode("utf-8", "replace"), comments=markdown, markdown=markdown).text
        assert clean(text) == text and unicodedata.is_normalized("NFC", text)
        text.encode("utf-8")


@given(st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Cf"))))
def test_text_passes_as_it_is(text):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    assert "".join(blocks(f"<p>{escaped}</p>")) == text
