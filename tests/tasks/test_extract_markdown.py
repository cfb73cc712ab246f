"""Tables, lists, quotations and code of a page, as text and as Markdown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract.attributes import attributes, number
from tasks.extract.main_content import parse
from tasks.extract.markdown import render


def whole(html, markdown=True):
    """The text of all blocks."""
    page = parse(html.encode())
    return render(page, np.arange(len(page.blocks)), markdown)


@pytest.mark.parametrize(("html", "markdown", "text"), [
    # empty cells keep their columns
    ("<table><tr><th>mill<th>stones<th>wheel<tr><td>upper<td><td>yes<tr><td>lower<td>2<td></table>",
     "| mill | stones | wheel |\n| --- | --- | --- |\n| upper |  | yes |\n| lower | 2 |  |",
     "mill\tstones\twheel\nupper\t\tyes\nlower\t2"),
    # a column that is empty throughout is none
    ("<table><tr><td>a<td>&nbsp;<td>b<tr><td>c<td><img src=x><td>d</table>",
     "|  |  |\n| --- | --- |\n| a | b |\n| c | d |", "a\tb\nc\td"),
    # headers: of thead, of th, in bold, or none
    ("<table><thead><tr><td>a<td>b</thead><tbody><tr><td>1<td>2</table>", "| a | b |\n| --- | --- |\n| 1 | 2 |",
     "a\tb\n1\t2"),
    ("<table><tr><td><th>x<th>y<tr><th>a<td>1<td>2</table>", "|  | x | y |\n| --- | --- | --- |\n| a | 1 | 2 |",
     "\tx\ty\na\t1\t2"),
    ("<table><tr><td><b>a</b><td><b>b</b><tr><td>1<td>2</table>", "| a | b |\n| --- | --- |\n| 1 | 2 |", "a\tb\n1\t2"),
    ("<table><tr><th>Height<td>3 m<tr><th>Built<td>1801</table>", "|  |  |\n| --- | --- |\n| Height | 3 m |\n"
     "| Built | 1801 |", "Height\t3 m\nBuilt\t1801"),
    # cells that span columns, and rows
    ("<table><tr><th>a<th>b<th>c<tr><td colspan=2>1<td>2<tr><td>3<td>4<td>5</table>",
     "| a | b | c |\n| --- | --- | --- |\n| 1 |  | 2 |\n| 3 | 4 | 5 |", "a\tb\tc\n1\t\t2\n3\t4\t5"),
    ("<table><tr><th>a<th>b<tr><td rowspan=2>1<td>2<tr><td>3<tr><td>4<td>5</table>",
     "| a | b |\n| --- | --- |\n| 1 | 2 |\n|  | 3 |\n| 4 | 5 |", "a\tb\n1\t2\n\t3\n4\t5"),
    ("<table><thead><tr><th rowspan=2>mill<th COLSPAN='2'>sacks<tr><th>1801<th>1802</thead><tr><td>upper<td>1<td>2"
     "</table>", "| mill | sacks 1801 | sacks 1802 |\n| --- | --- | --- |\n| upper | 1 | 2 |",
     "mill\tsacks\n\t1801\t1802\nupper\t1\t2"),
    # a title across the table, a caption
    ("<table><tr><th colspan=2>The mill<tr><th>Height<td>3 m<tr><th>Built<td>1801</table>",
     "The mill\n\n|  |  |\n| --- | --- |\n| Height | 3 m |\n| Built | 1801 |", "The mill\nHeight\t3 m\nBuilt\t1801"),
    ("<table><caption>Mills</caption><tr><th>a<th>b<tr><td>1<td>2</table>",
     "Mills\n\n| a | b |\n| --- | --- |\n| 1 | 2 |", "Mills\na\tb\n1\t2"),
    # bars, breaks, paragraphs in a cell
    ("<table><tr><th>a<th>b<tr><td>x|y<td>one<br>two<p>three</table>",
     "| a | b |\n| --- | --- |\n| x\\|y | one two three |", "a\tb\nx|y\tone two three"),
    # one row, a role, a table in it: layout
    ("<table><tr><td>a<td>b</table>", "a\tb", "a\tb"),
    ("<table role=presentation><tr><td>a<td>b<tr><td>c<td>d</table>", "a\tb\nc\td", "a\tb\nc\td"),
    ("<table><tr><td>menu<td><table><tr><th>a<th>b<tr><td>1<td>2</table><tr><td>foot<td>note</table>",
     "menu\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nfoot\tnote", "menu\n\na\tb\n1\t2\n\nfoot\tnote"),
    ("<table><tr><td>only<tr><td>lines</table>", "only\nlines", "only\nlines"),
    # odd ones
    ("<table><tr>x<td>a<td>b<tr><td>c<td>d</table>", "x\ta\tb\nc\td", None),
    ("<table><td>a<td>b</table>c", "a\n\nb\n\nc", None),
    ("<table><tr><th>a<th>b<tr><td colspan=0>1<td rowspan=0>2<tr><td>3<td colspan=x>4</table>",
     "| a | b |  |\n| --- | --- | --- |\n| 1 | 2 |  |\n| 3 |  | 4 |", None),
])
def test_tables(html, markdown, text):
    assert whole(html) == markdown
    assert text is None or whole(html, False) == text


def test_a_table_of_data_may_have_a_long_cell_and_one_of_layout_has_many():
    long = "The mill stood by the river for a hundred years before the railway came. " * 6
    row = f"<tr><td>years<td>{long}"
    short = "".join(f"<tr><td>{n}<td>{n * n}" for n in range(9))
    assert f"| years | {long.strip()} |" in whole(f"<table><tr><th>a<th>b{row}{short}</table>")
    assert f"| years | {long.strip()} |" in whole(f"<table><tr><th>a<th>b{short}{row}</table>")
    assert "|" not in whole(f"<table>{row}{row}</table>")


def test_a_row_of_which_little_is_chosen():
    html = "<table><tr><th>a<th>b<th>c<tr><td>1<td>2<td>3<tr><td>4<td>5<td>6</table>"
    page = parse(html.encode())
    assert render(page, np.array([0, 1, 2, 3, 5, 7]), True) == (
        "| a | b | c |\n| --- | --- | --- |\n| 1 |  | 3 |\n|  | 5 |  |")


@pytest.mark.parametrize(("html", "markdown", "text"), [
    ("<ol start=3><li>a<li>b</ol>", "3. a\n4. b", ...),
    ("<ol reversed><li>a<li>b<li>c</ol>", "3. a\n2. b\n1. c", ...),
    ("<ol START='0' Reversed=reversed><li>a<li>b</ol>", "0. a\n-1. b", ...),
    ("<ol><li value=7>a<li>b<li value='-2'>c<li>d</ol>", "7. a\n8. b\n-2. c\n-1. d", ...),
    ("<ol start=x><li value=y>a</ol><ul><li value=4>b</ul>", "1. a\n\n- b", ...),
    ("<ol><li>a<ul><li>b<ol start=9><li>c<li>d</ol><li>e</ul><li>f</ol>",
     "1. a\n   - b\n     9. c\n     10. d\n   - e\n2. f", ...),
    ("<ul><li>a<ul><li>b</ul>c<li>d</ul>", "- a\n  - b\n\n  c\n- d", "- a\n  - b\nc\n- d"),
    ("<ul><li>a<ul><ul><li>b</ul></ul></ul>", "- a\n  - b", ...),
    ("<ul><ul><li>a</ul><li>b</ul>", "- a\n- b", ...),
    ("<ul><li>a</ul><ul><li>b</ul>", "- a\n\n- b", ...),
    ("<ul><li>a<br>b<p>c</ul>", "- a\n  b\n\n  c", "- a\nb\nc"),
    ("<ol><li>run<pre>x = 1\n\n  y</pre>and<li>stop</ol>",
     "1. run\n   ```\n   x = 1\n\n     y\n   ```\n   and\n2. stop", "1. run\nx = 1\n\n  y\nand\n2. stop"),
    ("<ul><li><h3>a</h3>b</ul>", "- ### a\n  b", "- a\nb"),
    ("<ul><li>a<table><tr><th>x<th>y<tr><td>1<td>2</table><li>b</ul>",
     "- a\n\n  | x | y |\n  | --- | --- |\n  | 1 | 2 |\n- b", "- a\nx\ty\n1\t2\n- b"),
    ("<dl><dt>a<dd>b<dd>c</dl>", "a\nb\nc", ...),
    ("<table><tr><td><ul><li>a<li>b</ul><td>c</table>", "a\tc", None),
    ("<li>a<li>b", "- a\n\n- b", ...),
])
def test_lists(html, markdown, text):
    lines = [line.rstrip() for line in whole(html).split("\n")]
    assert text is None or "\n".join(lines) == markdown
    assert text is None or whole(html, False) == (markdown if text is ... else text)


@pytest.mark.parametrize(("html", "markdown"), [
    ("<blockquote>a<p>b</blockquote>c", "> a\n>\n> b\n\nc"),
    ("<blockquote>a<blockquote>b</blockquote>c</blockquote>", "> a\n>\n> > b\n>\n> c"),
    ("<blockquote>a<ul><li>b<li>c</ul></blockquote>", "> a\n>\n> - b\n> - c"),
    ("<ul><li>a<blockquote>b<p>c</blockquote>d<li>e</ul>", "- a\n\n  > b\n  >\n  > c\n\n  d\n- e"),
    ("<blockquote>a</blockquote><blockquote>b</blockquote>", "> a\n\n> b"),
    ("<blockquote><pre>x\n y</pre></blockquote>", "> ```\n> x\n>  y\n> ```"),
])
def test_quotations(html, markdown):
    assert "\n".join(line.rstrip() for line in whole(html).split("\n")) == markdown


@pytest.mark.parametrize(("html", "fence"), [
    ("<pre><code class='language-python'>x</code></pre>", "```python"),
    ("<pre class=\"lang-js prettyprint\">x</pre>", "```js"),
    ("<pre><code class='hljs rust'>x</code></pre>", "```rust"),
    ("<pre\n class='brush: php; gutter: false'>x</pre>", "```php"),
    ("<pre lang=go>x</pre>", "```go"), ("<pre lang=en>x</pre>", "```"),
    ("<pre data-language=c++><code>x</code></pre>", "```c++"),
    ("<div class='highlight-python3 notranslate'><div class=highlight><pre>x</pre></div></div>", "```python3"),
    ("<div class='highlight highlight-source-shell'><pre>x</pre></div>", "```shell"),
    ("<div class='language-ruby highlighter-rouge'><div class=highlight><pre class=highlight><code>x</code></pre></div>"
     "</div>", "```ruby"),
    ("<div class=sourceCode><pre class='sourceCode haskell'><code class='sourceCode haskell'>x</code></pre></div>",
     "```haskell"),
    ("<pre class='src src-emacs-lisp'>x</pre>", "```"), ("<pre class='src src-python'>x</pre>", "```python"),
    ("<figure class='highlight sql'><pre>x</pre></figure>", "```sql"),
    ("<pre><code class='language-none'>x</code></pre>", "```"), ("<pre class=language-text>x</pre>", "```"),
    ("<div class='highlight-default notranslate'><pre>x</pre></div>", "```"),
    ("<div class='go home'><div class=make><pre>x</pre></div></div>", "```"),
    ("<pre>a ``` b</pre>", "````"), ("<pre>````\n```</pre>", "`````"), ("<pre>``</pre>", "```"),
])
def test_fences(html, fence):
    lines = whole(html).split("\n")
    assert lines[0] == fence and lines[-1] == fence.rstrip("abcdefghijklmnopqrstuvwxyz+3")
    assert whole(html, False) == "\n".join(lines[1:-1])


CODE = ["def f(x):", "    if x:", "        return 1"]
NUMBERED = {
    "pygments": "<pre>" + "\n".join(f"<span class='lineno'>{n} </span>{line}" for n, line in enumerate(CODE, 1)),
    "sphinx": "<pre>" + "\n".join(f'<span class="linenos"> {n}</span>{line}' for n, line in enumerate(CODE, 8)),
    "anchors": "<pre>" + "\n".join(f'<a id=l{n} class="line-number" href=#l{n}>{n}</a>{line}'
                                   for n, line in enumerate(CODE, 1)),
    "chroma": "<pre>" + "".join(f'<span style="x"><span class=ln>{n}</span><span class=cl>{line}\n</span></span>'
                                for n, line in enumerate(CODE, 1)),
    "table": "<table class=highlighttable><tr><td class=linenos><div><pre>1\n2\n3</pre></div><td class=code><div><pre>"
    + "\n".join(CODE) + "</pre></div></table>",
    "hexo": "<figure><table><tr><td class=gutter><pre>" + "".join(f"<span class=line>{n}</span><br>" for n in (1, 2, 3))
    + "</pre></td><td class=code><pre>" + "".join(f"<span class=line>{line}</span><br>" for line in CODE)
    + "</pre></td></tr></table></figure>",
}


@pytest.mark.parametrize("name", NUMBERED)
def test_the_numbers_of_lines_are_no_code(name):
    html = NUMBERED[name] + ("</pre>" if NUMBERED[name].startswith("<pre") else "")
    assert whole(html, False) == "\n".join(CODE)
    assert whole(f"<p>So:{html}", True) == "So:\n\n```\n" + "\n".join(CODE) + "\n```"


@pytest.mark.parametrize("name", ["PRE", "listing", "Listing"])
def test_the_numbers_of_lines_in_whatever_code_is_written_in(name):
    html = NUMBERED["pygments"].replace("<pre>", f"<{name}>") + f"</{name}>"
    assert whole(f"{html}<p>and{html}", False) == "\n\n".join(["\n".join(CODE), "and", "\n".join(CODE)])


@pytest.mark.parametrize("html", ["<pre>1\n2\n3</pre>", "<pre>1 a\n2 b</pre>", "<pre>x<i class=number>1</i></pre>",
                                  "<table><tr><td><pre>1\n2</pre><td><p>words</table>"])
def test_other_numbers_stay(html):
    assert "1" in whole(html, False)


@pytest.mark.parametrize(("tag", "found"), [
    (b"<td colspan=2 rowspan='3' COLSPAN=4 x>", {"colspan": "2", "rowspan": "3", "x": ""}),
    (b"<td\n a = \"b > c\" /d=\"\" e='", {"a": "b > c", "d": "", "e": "'"}), (b"<td>", {}), (b"<td", {}), (b"", {}),
])
def test_attributes(tag, found):
    assert attributes(tag, 0) == found


def test_numbers_of_attributes():
    values = (" 12px", "-3", "+4", "x", "", None, "9" * 12)
    assert [number(value) for value in values] == [12, -3, 4, None, None, None, 999999999]


PARTS = st.lists(st.sampled_from([
    "<table>", "</table>", "<tr>", "<td>", "<th>", "<thead>", "<td colspan=3>", "<td rowspan=2>", "<caption>", "<ol>",
    "<ol reversed start=4>", "<ul>", "</ul>", "</ol>", "<li>", "<li value=3>", "<blockquote>", "</blockquote>", "<pre>",
    "</pre>", "<pre class=language-x>", "<span class=lineno>1</span>", "<p>", "<br>", "word", "|", "```", "\n", "<b>",
    "</b>", "<h2>", "</h2>", "<div>", "</div>"]), max_size=40)


@given(PARTS)
def test_nothing_is_lost_or_said_twice(parts):
    """Each word once in either format, and as many bars as columns in each line of a table."""
    html = "".join(f"w{n}x" if part == "word" else part for n, part in enumerate(parts))
    page = parse(html.encode())
    shown = page.text.tobytes().decode()
    for markdown in (False, True):
        text = whole(html, markdown)
        for n, part in enumerate(parts):
            if part == "word":
                expected = shown.count(f"w{n}x")
                assert text.count(f"w{n}x") == expected or "thead" in html and text.count(f"w{n}x") > expected > 0


HOSTILE = {
    "wide and high": "<table>" + "<tr><td>x" * 3000 + "<tr>" + "<td>y" * 3000 + "</table>",
    "spans": "<table>" + "<tr><td colspan=1000 rowspan=65534>x<td>y" * 5000 + "</table>",
    "rows of spans": "<table><tr>" + "<td rowspan=9999>x" * 300 + "<tr><td>a<td>b" * 5000 + "</table>",
    "nested": "<table><tr><td>a<td>b" * 5000, "tables": "<table><tr><th>a<th>b<tr><td>1<td>2</table>" * 5000,
    "lists": "<ul><li>x" * 5000, "quotations": "<blockquote>x" * 3000,
    "unclosed": "<td class='" * 5000, "gutters": "<pre>" + "<span class=x " * 20_000 + "</pre>",
    "wide spans": "<table><tr>" + "<td colspan=20000 rowspan=2>x" * 20_000 + "<tr><td>a<td>b</table>",
    "empty rows": "<table><tr>" + "<td rowspan=65534>x" * 20_000 + "<tr><td>a<td>b" + "<tr><td>" * 20_000 + "</table>",
    "wide headers": "<table>" + f"<tr>{f'<th colspan=10000>{1000 * chr(120)}' * 2}" * 6 + "<tr>" + "<td>y" * 20_000
    + "</table>",
    "code in capitals": "<PRE>x</PRE>" * 100_000, "listings": "<listing>x</listing>" * 100_000,
    "unclosed code": "<table>" + "<tr><td><pre>x<td>y" * 50_000 + "</pre>",
    "gutter classes": "<pre>" + "<span " + "class=" * 20_000 + "lineno>1</pre>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_hostile_pages_give_is_bounded(name):
    """Their text, and the time: quadratic ways take minutes here."""
    for markdown in (False, True):
        assert len(whole(HOSTILE[name], markdown)) < 20 * len(HOSTILE[name])
