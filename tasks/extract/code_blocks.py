"""Preformatted text that is code: its language, and its lines without the numbers beside them.

Classes as highlighters write them: `language-x` (HTML Standard, 4.5.15), Sphinx and Pygments, GitHub, pandoc, Org,
SyntaxHighlighter, highlight.js, Rouge, Chroma.
"""

import re
from bisect import bisect_right

import numpy as np

from tasks.extract.attributes import attributes
from tasks.extract.blocks import N_AT, N_BLOCKS, N_PARENT, Parsed, tokenize
from tasks.extract.text import END, START

_CODE = re.compile(rb"<(?:pre|listing)\b[^>]{0,2048}>\s{0,99}<code\b", re.IGNORECASE)
_EDGE = re.compile(rb"</?(?:pre|listing)\b", re.IGNORECASE)
_MARKED = re.compile(r"(?:(?:language|lang|highlight-source|highlight-text|highlight|src|hljs-lang)[-_]|brush:)"
                     r"([a-z][a-z0-9+#.-]{0,20})")
_NO_LANGUAGE = frozenset("none default plain plaintext plain-text text txt nohighlight no-highlight notranslate "
                         "wrapper block container box line lines code example output auto unknown undefined null "
                         "raw".split())
_LANGUAGES = frozenset("""
ada apache applescript arduino asm assembly awk bash bat batch c c# c++ clojure cmake cobol coffeescript console cpp cs
csharp css cuda cython d dart delphi diff docker dockerfile elixir elm erlang f# fish fortran fsharp gherkin glsl go
golang graphql groovy haskell haxe hcl hlsl html http ini ipython ipython3 java javascript js json json5 jsx julia
kotlin latex less lisp lua make makefile markdown mathematica matlab md mysql nginx nim nix objective-c objectivec
ocaml octave pascal perl php pl plsql postgresql powershell prolog properties protobuf ps1 puppet py pycon python
python2 python3 r rb react rst ruby rust sass scala scheme scss sh shell smalltalk solidity sparql sql stata svelte
swift tcl terraform tex toml ts tsql tsx typescript vb vbnet verilog vhdl vim vue wasm xml xquery xslt yaml yml zig zsh
""".split())
_SURE = ("language-", "lang-", "highlight-source-", "brush:")
_AROUND = 3                  # elements around the code whose classes are looked at
_KEYS = {"data-lang", "data-language", "lang"}
# What holds the number of a line: no other text, in an element of its own.
_NUMBER = re.compile(
    rb"""<(span|a|i|b|div|td)\b[^<>]{0,512}?\bclass\s*=\s*["']?[^"'<>]{0,256}?\b(?:line-?nos?|line-?numbers?|linenos"""
    rb"""|lnt?|ln-num|hljs-ln-numbers|blob-num|gutter)\b[^<>]{0,512}>(?:\s|&nbsp;|[0-9.:|]|<a\b[^<>]{0,512}>|</a>){0,64}"""
    rb"""</\1>""", re.IGNORECASE)


def language(page: Parsed, pre: int) -> str:
    """The name of the language that the classes of the element `pre`, its code element or those around it give."""
    html, at = page.html, int(page.nodes[pre, N_AT])
    places = [at]
    if code := _CODE.match(html, at):
        places.append(html.rindex(b"<", at, code.end()))
    own, node = len(places), pre
    for _ in range(_AROUND):
        node = int(page.nodes[node, N_PARENT])
        if node <= 0:
            break
        places.append(int(page.nodes[node, N_AT]))
    for nth, place in enumerate(places):
        found = attributes(html, place)
        for key in sorted(found.keys() & _KEYS):
            if (name := found[key].strip().lower()) in _LANGUAGES:
                return name
        if "class" in found and (name := _of_class(found["class"], own=nth < own)):
            return name
    return ""


def _of_class(names: str, own: bool) -> str:
    words = names.lower().replace(": ", ":").replace(";", " ").split()
    for word in words:
        if (match := _MARKED.fullmatch(word)) and match[1] not in _NO_LANGUAGE and (
                match[1] in _LANGUAGES or word.startswith(_SURE)):
            return match[1]
    bare = own or not {"highlight", "sourcecode", "src", "hljs", "code", "codeblock"}.isdisjoint(words)
    return next((word for word in words if word in _LANGUAGES), "") if bare else ""


def edges(html: bytes) -> list[int]:
    """Where the tags of preformatted elements stand, in their order: sought once a page, not from each of them on."""
    return [match.start() for match in _EDGE.finditer(html)]


def without_numbers(page: Parsed, pre: int, text: str, tags: list[int]) -> str:
    """`text`, that of the element `pre`, without the numbers of its lines.

    Args:
        tags: `edges` of the page. What ends at no tag of its own stays as it is, so that no two elements share bytes.
    """
    html, at = page.html, int(page.nodes[pre, N_AT])
    nth = bisect_right(tags, at)
    end = tags[nth] if nth < len(tags) else at
    if html[end:end + 2] != b"</" or page.nodes[pre, N_BLOCKS] != 1 or not _NUMBER.search(html, at, end):
        return text
    again = tokenize(_NUMBER.sub(b"", html[at:end]) + b"</pre>")
    if len(again.blocks) != 1:
        return text
    return again.text[again.blocks[0, START]:again.blocks[0, END]].tobytes().decode("utf-8", "replace")


def is_gutter(text: str) -> bool:
    """Whether a text consists of the numbers of lines, each on its own."""
    numbers = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 7 for word in numbers) or "\n\n\n" in text:
        return False
    return len(numbers) > 0 and bool((np.diff(np.array(numbers, np.int64)) == 1).all())


def fenced(text: str, name: str) -> str:
    """Code between fences that no run of backticks in it closes."""
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{name}\n{text}\n{fence}"
