"""Presentation MathML as TeX.

Elements and their arguments: MathML 3, chapter 3 (https://www.w3.org/TR/MathML3/chapter3.html). Commands: LaTeX and
amsmath (https://www.ams.org/arc/tex/amsmath/amsldoc.pdf). Takes time linear in the bytes, and never raises: what is
malformed is read as far as it goes. No library that does this is kept up, takes malformed input and linear time.
"""

import re
import unicodedata
from collections.abc import Callable

from tasks.extract.references import unescape

_DEEPEST = 32                # elements within each other, beyond which they only hold their content
_TOKEN = re.compile(r"<!--.*?(?:-->|$)|<(/?)\s*(?:[\w-]+:)?([A-Za-z][\w-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>"
                    r"|([^<]+)|<", re.DOTALL)
_ATTRIBUTE = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))")
_COMMAND_LAST = re.compile(r"\\[A-Za-z]+$")
_SPACE_AFTER = re.compile(r"(\\[A-Za-z]+) +(?![A-Za-z0-9])")
_SINGLE = re.compile(r"[^\\{}^_ ]|\\[A-Za-z]+ ?|\\[^A-Za-z]|[0-9]+(?:[.,][0-9]+)*", re.DOTALL)
_BRACKETED = re.compile(r"(?:\\left)?[(\[|].*[)\]|]", re.DOTALL)
_INVISIBLE = dict.fromkeys((0x2061, 0x2062, 0x2063, 0x2064, 0x200B, 0x2060, 0xFE0E, 0xFE0F, 0xAD))
_SPECIAL = str.maketrans({c: "\\" + c for c in "#$%&_{}"} | {"\\": "\\backslash ", "~": "\\sim "})
_TEXT_SPECIAL = str.maketrans({c: "\\" + c for c in "#$%&_{}"} | {"\\": "\\textbackslash "})
_FUNCTIONS = frozenset("arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf "
                       "limsup ln log max min Pr sec sin sinh sup tan tanh".split())
_NAMES = r"""
α alpha β beta γ gamma δ delta ε varepsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho ς
varsigma σ sigma τ tau υ upsilon φ varphi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ
Upsilon Φ Phi Ψ Psi Ω Omega ϵ epsilon ϑ vartheta ϕ phi ϖ varpi ϱ varrho ∑ sum ∏ prod ∐ coprod ∫ int ∬ iint ∭ iiint ∮
oint ⋃ bigcup ⋂ bigcap ⨁ bigoplus ⨂ bigotimes ⋁ bigvee ⋀ bigwedge ± pm ∓ mp × times ÷ div ⋅ cdot · cdot ∗ ast ∘ circ
∙ bullet ⊕ oplus ⊖ ominus ⊗ otimes ⊘ oslash ⊙ odot ∩ cap ∪ cup ∧ wedge ∨ vee ⊓ sqcap ⊔ sqcup ∖ setminus ⋆ star †
dagger ‡ ddagger ≀ wr ≤ leq ≥ geq ≠ neq ≡ equiv ≈ approx ∼ sim ≃ simeq ≅ cong ∝ propto ≪ ll ≫ gg ≺ prec ≻ succ ⪯
preceq ⪰ succeq ⊂ subset ⊃ supset ⊆ subseteq ⊇ supseteq ⊄ not\subset ∈ in ∉ notin ∋ ni ⊢ vdash ⊨ models ⊥ perp ∥
parallel ∣ mid ≐ doteq ≜ triangleq ≔ coloneqq ⩽ leqslant ⩾ geqslant ← leftarrow → rightarrow ↔ leftrightarrow ⇐
Leftarrow ⇒ Rightarrow ⇔ Leftrightarrow ↑ uparrow ↓ downarrow ↦ mapsto ⟶ longrightarrow ⟵ longleftarrow ⟹
Longrightarrow ⟺ Longleftrightarrow ⟼ longmapsto ↪ hookrightarrow ⇌ rightleftharpoons ↗ nearrow ↘ searrow ⟷
longleftrightarrow ∞ infty ∂ partial ∇ nabla ∀ forall ∃ exists ∄ nexists ∅ emptyset ℏ hbar ℓ ell ℜ Re ℑ Im ℵ aleph ∠
angle △ triangle □ square ◊ lozenge ⊤ top ¬ neg ′ prime ″ prime\prime … ldots ⋯ cdots ⋮ vdots ⋱ ddots ∴ therefore ∵
because ⟨ langle ⟩ rangle ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil ‖ Vert √ surd ℂ mathbb{C} ℍ mathbb{H} ℕ mathbb{N} ℙ
mathbb{P} ℚ mathbb{Q} ℝ mathbb{R} ℤ mathbb{Z}
""".split()
_COMMANDS = dict(zip(_NAMES[::2], _NAMES[1::2], strict=True))
_SYMBOLS = str.maketrans({c: f"\\{name}" + ("" if name.endswith("}") else " ") for c, name in _COMMANDS.items()}
                         | {"−": "-", "–": "-", "∕": "/", "⁡": "", "\xa0": " ", "∶": ":"})
_ACCENTS = {"^": "hat", "ˆ": "hat", "̂": "hat", "~": "tilde", "˜": "tilde", "̃": "tilde", "¯": "bar", "‾": "overline",
            "ˉ": "bar", "_": "overline", "―": "overline", "̅": "overline", "→": "vec", "⃗": "vec", "⇀": "vec", ".": "dot",
            "˙": "dot", "̇": "dot", "¨": "ddot", "̈": "ddot", "ˇ": "check", "˘": "breve", "⏞": "overbrace",
            "⏜": "overparen", "´": "acute", "`": "grave", "˚": "mathring", "−": "overline", "-": "overline"}
_UNDER = {"_": "underline", "̲": "underline", "‾": "underline", "¯": "underline", "⏟": "underbrace", "−": "underline",
          "-": "underline", "ˍ": "underline", "―": "underline"}
_LIMITS = re.compile(r"\\(?:sum|prod|coprod|i{0,3}int|oint|big[a-z]+|lim|liminf|limsup|max|min|sup|inf|det|gcd|Pr) ?")
_VARIANTS = {"bold": "mathbf", "bold-italic": "boldsymbol", "double-struck": "mathbb", "script": "mathcal",
             "bold-script": "mathcal", "fraktur": "mathfrak", "bold-fraktur": "mathfrak", "sans-serif": "mathsf",
             "monospace": "mathtt"}

Attributes = dict[str, str]
Children = list[str]


def _arg(children: Children, n: int) -> str:
    return children[n].strip() if n < len(children) else ""


def _group(text: str) -> str:
    """`text` as the argument of an index: in braces unless it is one token."""
    text = text.strip()
    return text if len(text) == 1 and text not in "\\{}" or _SINGLE.fullmatch(text) and text.startswith("\\") else (
        f"{{{text}}}")


def _base(text: str) -> str:
    """`text` as what an index stands at."""
    text = text.strip()
    whole = _SINGLE.fullmatch(text) or _BRACKETED.fullmatch(text) or _LIMITS.fullmatch(text) or re.fullmatch(
        r"\\[A-Za-z]+\{[^{}]*\}", text)
    return text if whole else f"{{{text}}}"


def _scripts(base: str, low: str, high: str) -> str:
    """Base with indices below and above; primes as such."""
    text = _base(base)
    if low.strip():
        text += "_" + _group(low)
    primes = high.strip()
    if primes and not primes.replace("\\prime", "").replace("'", "").strip():
        return text + "'" * (primes.count("\\prime") + primes.count("'"))
    return text + ("^" + _group(high) if primes else "")


def _under_over(base: str, low: str, high: str) -> str:
    if _LIMITS.fullmatch(base) or not (low or high) or base.startswith(("\\overbrace", "\\underbrace")):
        return _scripts(base, low, high)
    if high:
        name = _ACCENTS.get(high) or _ACCENTS.get(_SIGNS_OF.get(high, ""))
        base = f"\\{name}{{{base}}}" if name else f"\\overset{{{high}}}{{{base}}}"
    if low:
        name = _UNDER.get(low) or _UNDER.get(_SIGNS_OF.get(low, ""))
        base = f"\\{name}{{{base}}}" if name else f"\\underset{{{low}}}{{{base}}}"
    return base


_SIGNS_OF = {f"\\{name}": c for c, name in _COMMANDS.items()} | {"\\_": "_", "\\sim": "~"}


def _multiscripts(children: Children) -> str:
    at = children.index(_PRESCRIPTS) if _PRESCRIPTS in children else len(children)
    after, before = children[1:at], children[at + 1:]
    def joined(scripts: Children, n: int) -> str:
        return " ".join(filter(None, (script.strip() for script in scripts[n::2])))

    low, high = joined(before, 0), joined(before, 1)
    front = "{}" + (f"_{_group(low)}" if low else "") + (f"^{_group(high)}" if high else "") if low or high else ""
    return front + _scripts(_arg(children, 0), joined(after, 0), joined(after, 1))


def _table(children: Children, given: Attributes) -> str:
    rows = [child.removesuffix(_ROW) for child in children if child.strip()]
    name = "aligned" if "right left" in given.get("columnalign", "") else "matrix"
    return f"\\begin{{{name}}}" + " \\\\ ".join(rows) + f"\\end{{{name}}}"


def _row(children: Children, label: bool) -> str:
    label, cells = (children[:1], children[1:]) if label else ([], children)
    return " & ".join(cell.strip() for cell in cells) + "".join(f" \\quad {part}" for part in label) + _ROW


def _fenced(children: Children, given: Attributes) -> str:
    opening, closing = (_operator(given.get(key, default)) for key, default in (("open", "("), ("close", ")")))
    separators = "".join(given.get("separators", ",").split())
    parts = []
    for n, child in enumerate(children):
        parts.append(child.strip() + (_operator(separators[min(n, len(separators) - 1)])
                                      if separators and n < len(children) - 1 else ""))
    return opening + "".join(parts) + closing


def _enclosed(inner: str, notation: str) -> str:
    if "radical" in notation:
        return f"\\sqrt{{{inner}}}"
    if "strike" in notation:
        return f"\\cancel{{{inner}}}"
    return f"\\boxed{{{inner}}}" if "box" in notation or "circle" in notation else inner


def _operator(text: str) -> str:
    text = " ".join(text.translate(_INVISIBLE).split())
    return f"\\{text} " if text in _FUNCTIONS else f"\\operatorname{{{text}}}" if len(text) > 1 and text.isalpha() and (
        text.isascii()) else text.translate(_SPECIAL_SYMBOLS)


def _identifier(text: str, given: Attributes) -> str:
    text = " ".join(text.translate(_INVISIBLE).split())
    if text in _FUNCTIONS:
        return f"\\{text} "
    variant = _VARIANTS.get(given.get("mathvariant", ""))
    if variant and text:
        return f"\\{variant}{{{text.translate(_SPECIAL_SYMBOLS)}}}"
    return f"\\mathrm{{{text.translate(_SPECIAL)}}}" if len(text) > 1 and text.isalnum() and text.isascii() else (
        text.translate(_SPECIAL_SYMBOLS))


def _words(text: str) -> str:
    shown = " ".join(text.translate(_INVISIBLE).split()) if text.strip() else ""
    if not any(c.isalpha() for c in shown):
        return shown.translate(_SPECIAL_SYMBOLS) if shown else " "
    shown = (" " if text[0].isspace() else "") + shown + (" " if text[-1].isspace() else "")
    return f"\\text{{{shown.translate(_TEXT_SPECIAL)}}}"


_SPECIAL_SYMBOLS = _SYMBOLS | _SPECIAL
_PRESCRIPTS, _ROW = "\x00", "\x01"
_TOKENS: dict[str, Callable[[str, Attributes], str]] = {
    "mi": _identifier, "mn": lambda text, given: "".join(text.split()).translate(_SPECIAL_SYMBOLS),
    "mo": lambda text, given: _operator(text), "mtext": lambda text, given: _words(text),
    "ms": lambda text, given: _words(f"{given.get('lquote', chr(34))}{text.strip()}{given.get('rquote', chr(34))}")}
_LAYOUTS: dict[str, Callable[[Children, Attributes], str]] = {
    "mspace": lambda c, given: " ", "mphantom": lambda c, given: "", "annotation": lambda c, given: "",
    "annotation-xml": lambda c, given: "", "none": lambda c, given: "", "mprescripts": lambda c, given: _PRESCRIPTS,
    "semantics": lambda c, given: _arg(c, 0), "maction": lambda c, given: _arg(c, 0),
    "mfrac": lambda c, given: (f"{{{_arg(c, 0)} \\atop {_arg(c, 1)}}}" if given.get("linethickness", "")[:1] == "0"
                               else f"\\frac{{{_arg(c, 0)}}}{{{_arg(c, 1)}}}"),
    "msqrt": lambda c, given: f"\\sqrt{{{''.join(c).strip()}}}",
    "mroot": lambda c, given: f"\\sqrt[{_arg(c, 1)}]{{{_arg(c, 0)}}}",
    "msub": lambda c, given: _scripts(_arg(c, 0), _arg(c, 1), ""),
    "msup": lambda c, given: _scripts(_arg(c, 0), "", _arg(c, 1)),
    "msubsup": lambda c, given: _scripts(_arg(c, 0), _arg(c, 1), _arg(c, 2)),
    "munder": lambda c, given: _under_over(_arg(c, 0), _arg(c, 1), ""),
    "mover": lambda c, given: _under_over(_arg(c, 0), "", _arg(c, 1)),
    "munderover": lambda c, given: _under_over(_arg(c, 0), _arg(c, 1), _arg(c, 2)),
    "mmultiscripts": lambda c, given: _multiscripts(c), "mtable": _table, "mfenced": _fenced,
    "mtr": lambda c, given: _row(c, False), "mlabeledtr": lambda c, given: _row(c, True),
    "menclose": lambda c, given: _enclosed("".join(c).strip(), given.get("notation", ""))}


def tex(mathml: str) -> str:
    """The content of a math element in TeX, without signs around."""
    frames: list[tuple[str, str, Children]] = [("math", "", [])]      # name, attributes as they stand, children
    skipped = 0                                                       # elements beyond the deepest that are open

    def close() -> None:
        name, given, children = frames.pop()
        if name in _TOKENS:
            made = _TOKENS[name]("".join(children), _attributes(given))
        elif name in _LAYOUTS:
            made = _LAYOUTS[name](children, _attributes(given))
        else:
            made = "".join(children)
        frames[-1][2].append(made + " " if _COMMAND_LAST.search(made, max(0, len(made) - 32)) else made)

    for match in _TOKEN.finditer(mathml):
        closing, name, given, text = match.groups()
        if text is not None:
            if text.strip() or frames[-1][0] in _TOKENS:
                text = unescape(text)
                text = unicodedata.normalize("NFKC", text) if max(text, default="") > "\U0001d3ff" else text
                frames[-1][2].append(text if frames[-1][0] in _TOKENS else text.strip().translate(_SPECIAL_SYMBOLS))
        elif name is None:
            continue
        elif closing:
            if skipped:
                skipped -= 1
            elif any(frame[0] == name.lower() for frame in frames[1:]):
                while frames[-1][0] != name.lower():
                    close()
                close()
        elif len(frames) > _DEEPEST:
            skipped += not given.endswith("/")
        else:
            frames.append((name.lower(), given, []))
            if given.endswith("/"):
                close()
    while len(frames) > 1:
        close()
    made = "".join(frames[0][2]).replace(_PRESCRIPTS, "").replace(_ROW, "")
    return " ".join(_SPACE_AFTER.sub(r"\1", made).split())


def _attributes(given: str) -> Attributes:
    return {name.lower(): unescape(a or b or c) for name, a, b, c in _ATTRIBUTE.findall(given)} if "=" in given else {}


def fitting(mathml: bytes) -> bytes:
    """The same in UTF-8 for what decodes character references, and never longer: nothing where malformed MathML is."""
    found = tex(mathml.decode("utf-8", "replace"))
    for text in (found, " ".join(re.sub(r"<[^>]*>", " ", mathml.decode("utf-8", "replace")).split())):
        data = text.replace("&", "&amp;").encode() if text is found else text.encode()
        if len(data) <= len(mathml):
            return data
    return b""
