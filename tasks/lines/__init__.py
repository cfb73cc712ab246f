"""lines: which lines of each document are cut before anything is measured.

C4 and RefinedWeb take lines out of pages: menus, counters, consent banners, `read more`. Here they are spans over the
text, which stays as it is (`tasks.spans`), one a line, its type the rule of `tasks.lines.rules.RULES` that cut it; so
a cut line can be looked at, and counted. What too much was cut from is for a rule of `filter` to drop
(`refinedweb_removed_words`). A line is what lies between line feeds; with it goes the white space up to the next line.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.lines.rules import PRESETS, RULES, phrase_table
from tasks.schema import LINES, SPAN, SPANS
from tasks.spans import utf8
from tasks.stage import Stage
from tasks.words import capitals, code_points

Preset = Literal[tuple(PRESETS)]


class Lines(BaseModel):
    """Settings of the lines stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    presets: tuple[Preset, ...] = Field(
        ("boilerplate",), description=f"sets of line rules that are on, of {', '.join(PRESETS)}; none when empty")
    rules: tuple[Literal[tuple(RULES)], ...] = Field((), description="single rules that are on beside those")
    without: tuple[Literal[tuple(RULES)], ...] = Field((), description="rules of the presets that are off")
    min_words: int = Field(
        3, ge=1, description="line_words: words of a line that stays (C4's paper: 3, its code and DCLM: 5)")
    max_word_length: int = Field(1000, ge=1, description="line_word_length: characters without white space (C4: 1000)")

    def on(self) -> list[str]:
        """The rules that are on, in the order in which they decide."""
        chosen = {rule for preset in self.presets for rule in PRESETS[preset]} | set(self.rules)
        return [rule for rule in RULES if rule in chosen - set(self.without)]


lines = Stage("lines", version=2, settings=Lines, conserves="documents", makes=LINES, libraries=("unicodedata",),
              needs={"documents": ["doc_id", "text"]})


@lines.shard
def cut_lines(documents: pa.Table, settings: Lines) -> pa.Table:
    """One row a document, with the lines to cut as spans that have an empty replacement."""
    n, on = len(documents), settings.on()
    counts, cuts = np.zeros((n, 4), np.int32), np.empty((0, 4), np.int32)
    if n and on:
        from tasks.lines.kernel import find_lines  # numba takes a second to import

        data, offsets = utf8(documents["text"])
        chosen = np.array([rule in on for rule in RULES])
        cuts = find_lines(data, offsets, code_points(), capitals(), *phrase_table(), chosen, settings.min_words,
                          settings.max_word_length, counts)
    names = pa.DictionaryArray.from_arrays(pa.array(cuts[:, 3]), pa.array(list(RULES))).dictionary_decode()
    entries = pa.StructArray.from_arrays(
        [names, pa.array(cuts[:, 1]), pa.array(cuts[:, 2]), pa.array([""] * len(cuts), pa.string())], fields=list(SPAN))
    ends = pa.array(np.append(0, np.cumsum(counts[:, 1])), pa.int32())
    spans = pa.ListArray.from_arrays(ends, entries, type=SPANS.field("spans").type)
    return pa.table([documents["doc_id"], np.arange(n, dtype=np.int32), spans, *counts.T], schema=LINES)
