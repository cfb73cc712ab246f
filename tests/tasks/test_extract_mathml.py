"""MathML as TeX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract.blocks import END, START, tokenize
from tasks.extract.mathml import fitting, tex


@pytest.mark.parametrize(("mathml", "found"), [
    ("<mi>x</mi><mo>=</mo><mn>1.5</mn>", "x=1.5"), ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", "\\sin x"),
    ("<mi>&alpha;</mi><mi>x</mi><mo>&InvisibleTimes;</mo><mi>β</mi>", "\\alpha x\\beta"),
    ("<mi>rate</mi>", "\\mathrm{rate}"), ("<mi mathvariant='double-struck'>R</mi>", "\\mathbb{R}"),
    ("<mi>ℝ</mi><mi>𝑥</mi>", "\\mathbb{R}x"), ("<mi mathvariant=\"bold\">v</mi>", "\\mathbf{v}"),
    ("<mo>{</mo><mn>50</mn><mo>%</mo><mo>}</mo>", "\\{50\\%\\}"), ("<mo>lim</mo>", "\\lim"),
    ("<mo>−</mo><mo>&lt;</mo><mo>≤</mo><mo>&amp;</mo>", "-<\\leq\\&"),
    ("<mi>x</mi><mtext> if </mtext><mi>y</mi>", "x\\text{ if }y"),
    ("<mtext>&nbsp;</mtext><mtext>10 %</mtext>", "10 \\%"),
    ("<ms>ab</ms>", "\\text{\"ab\"}"), ("<mi>a</mi><mspace width='1em'/><mi>b</mi>", "a b"),
    ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></mfrac>", "\\frac{a+b}{2}"),
    ("<mfrac linethickness='0'><mi>n</mi><mi>k</mi></mfrac>", "{n \\atop k}"),
    ("<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt>", "\\sqrt{x+1}"),
    ("<mroot><mi>x</mi><mn>3</mn></mroot>", "\\sqrt[3]{x}"),
    ("<msub><mi>x</mi><mn>10</mn></msub>", "x_{10}"), ("<msup><mi>x</mi><mi>α</mi></msup><mi>y</mi>", "x^\\alpha y"),
    ("<msubsup><mo>∫</mo><mn>0</mn><mi>∞</mi></msubsup>", "\\int_0^\\infty"),
    ("<msup><mrow><mo>(</mo><mi>a</mi><mo>)</mo></mrow><mn>2</mn></msup>", "(a)^2"),
    ("<msup><mrow><mi>a</mi><mi>b</mi></mrow><mn>2</mn></msup>", "{ab}^2"),
    ("<msup><msup><mi>a</mi><mi>b</mi></msup><mn>2</mn></msup>", "{a^b}^2"),
    ("<msup><mi>f</mi><mo>′</mo></msup>", "f'"),
    ("<msub><mrow/><mn>2</mn></msub>", "{}_2"),
    ("<munder><mi>lim</mi><mrow><mi>x</mi><mo>→</mo><mn>0</mn></mrow></munder>", "\\lim_{x\\rightarrow 0}"),
    ("<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>", "\\sum_{i=1}^n"),
    ("<mover accent='true'><mi>x</mi><mo>^</mo></mover>", "\\hat{x}"),
    ("<mover><mi>v</mi><mo>→</mo></mover>", "\\vec{v}"),
    ("<mover><mi>x</mi><mo>¯</mo></mover>", "\\bar{x}"), ("<munder><mi>x</mi><mo>_</mo></munder>", "\\underline{x}"),
    ("<mover><mo>=</mo><mi>d</mi></mover>", "\\overset{d}{=}"),
    ("<munder><mi>a</mi><mi>b</mi></munder>", "\\underset{b}{a}"),
    ("<munder><munder><mi>a</mi><mo>⏟</mo></munder><mi>n</mi></munder>", "\\underbrace{a}_n"),
    ("<mmultiscripts><mi>C</mi><mn>2</mn><none/><mprescripts/><mn>6</mn><mn>14</mn></mmultiscripts>", "{}_6^{14}C_2"),
    ("<mo>(</mo><mtable><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr><mtr><mtd><mn>1</mn></mtd><mtd/></mtr></mtable>"
     "<mo>)</mo>", "(\\begin{matrix}a & b \\\\ 1 & \\end{matrix})"),
    ("<mtable columnalign='right left'><mtr><mtd><mi>a</mi></mtd><mtd><mo>=</mo><mi>b</mi></mtd></mtr></mtable>",
     "\\begin{aligned}a & =b\\end{aligned}"),
    ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a,b)"),
    ("<mfenced open='{' close='' separators=';'><mi>a</mi><mi>b</mi></mfenced>", "\\{a;b"),
    ("<menclose notation='updiagonalstrike'><mi>a</mi></menclose>", "\\cancel{a}"),
    ("<menclose notation='box'><mi>a</mi></menclose>", "\\boxed{a}"),
    ("<mphantom><mi>a</mi></mphantom><mi>b</mi>", "b"),
    ("<mpadded width='0'><mstyle displaystyle='true'><mi>a</mi></mstyle></mpadded>", "a"),
    ("<semantics><mi>a</mi><annotation-xml><ci>a</ci></annotation-xml><annotation>x</annotation></semantics>", "a"),
    ("<!-- <mi>a</mi> --><mi>b</mi>", "b"), ("\n  <mrow>\n <mi> x </mi>\n</mrow>", "x"),
    ("<m:mi>x</m:mi><MN>2</MN>", "x2"), ("x &lt; 2", "x < 2"),
    ("<mfrac><mi>a</mi>", "\\frac{a}{}"), ("</mfrac></mrow><mi>a", "a"), ("<", ""), ("", ""),
    ("<mi>&#1;</mi>", ""), ("<mi>&#1;</mi><mi>y</mi>", "y"), (f"<mi>&#{'9' * 5000};</mi>", "�"),
    (f"<mi mathvariant='&#{'9' * 5000};'>x</mi>", "x"), (f"<mi>&#{'0' * 5000}65;</mi>", "A"),
])
def test_tex(mathml, found):
    assert tex(mathml) == found


def shown(html):
    page = tokenize(html.encode())
    data = page.text.tobytes()
    return [data[block[START]:block[END]].decode() for block in page.blocks]


def test_what_is_longer_than_its_mathml_is_left_plain():
    assert shown("<math><mo>⟺</mo></math>") == ["$⟺$"] and shown("<math><mtable>a") == ["a"]
    assert shown("<math><mtable></math>") == [] and shown("<math><mo>a &amp; b</mo></math>") == ["$a \\& b$"]


def test_depth_is_no_cost():
    assert tex("<msqrt>" * 10_000 + "<mi>x</mi>").count("\\sqrt") == 32
    assert len(fitting(b"<mover>" * 20_000)) < 1000


NAMES = ("mi mn mo mtext ms mspace mrow mfrac msqrt mroot msub msup msubsup munder mover munderover "
         "mmultiscripts mprescripts none mtable mtr mlabeledtr mtd mfenced menclose mphantom mpadded mstyle semantics "
         "annotation").split()
PIECES = st.sampled_from([*(f"<{name}>" for name in NAMES), *(f"</{name}>" for name in NAMES), "x", "α", "&amp;",
                          "&lt;", "&nbsp;", "<mi>y</mi>", "<mn>12</mn>", "<mo>^</mo>", "\\", "{", "<mo a='", "\x00",
                          "\x01", " ", "&#1;", f"&#{'9' * 5000};", f"&#{'0' * 5000}"])


@given(st.lists(PIECES, max_size=30))
def test_anything_gives_text_no_longer_than_it_is(pieces):
    mathml = "".join(pieces)
    assert "\x00" not in tex(mathml) and "\x01" not in tex(mathml)
    assert len(fitting(mathml.encode())) <= len(mathml.encode())
    shown(f"a<math>{mathml}</math>b")
