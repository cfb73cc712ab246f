"""The compression ratio: against an encoder that writes the block, which the LZ4 library then reads."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.annotate.compression import HASH_BITS, LAST_LITERALS, LEAST_MATCH, NO_MATCH, WINDOW, compress


def ratio(*texts: bytes) -> list[float]:
    ratios = np.zeros(len(texts))
    compress(np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]), ratios)
    return ratios.tolist()


def block(data: bytes) -> bytes:
    """The definition, written out."""
    out, anchor, i, last_places = bytearray(), 0, 0, {}

    def sequence(literals: bytes, match: int | None, offset: int = 0) -> None:
        out.append(min(len(literals), 15) << 4 | (0 if match is None else min(match - LEAST_MATCH, 15)))
        extend(len(literals))
        out.extend(literals)
        if match is not None:
            out.extend(offset.to_bytes(2, "little"))
            extend(match - LEAST_MATCH)

    def extend(n: int) -> None:
        if n >= 15:
            out.extend(b"\xff" * ((n - 15) // 255) + bytes([(n - 15) % 255]))

    while i < len(data) - NO_MATCH:
        four = data[i:i + LEAST_MATCH]
        slot = int.from_bytes(four, "little") * 2654435761 % 2**32 >> 32 - HASH_BITS
        found = last_places.get(slot, -1)
        last_places[slot] = i
        if found < 0 or i - found > WINDOW or data[found:found + LEAST_MATCH] != four:
            i += 1
            continue
        n = LEAST_MATCH
        while i + n < len(data) - LAST_LITERALS and data[found + n] == data[i + n]:
            n += 1
        sequence(data[anchor:i], n, i - found)
        i += n
        anchor = i
    sequence(data[anchor:], None)
    return bytes(out)


TEXTS = st.one_of(st.binary(max_size=400), st.lists(st.sampled_from([b"abcd", b"the ", b"x", b"\n", b"abcdefgh" * 40]),
                                                    max_size=80).map(b"".join))


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_the_size_is_that_of_a_block_that_lz4_reads(data):
    packed = block(data)
    assert not data or pa.Codec("lz4_raw").decompress(packed, len(data)).to_pybytes() == data
    assert ratio(data) == [pytest.approx(len(data) / len(packed))]


@given(st.lists(TEXTS, max_size=6))
@settings(max_examples=60, deadline=None)
def test_documents_do_not_see_their_neighbours(texts):
    assert ratio(*texts) == [ratio(text)[0] for text in texts]


def test_examples():
    prose = (b"When the rain came in the evening, nobody on the long pier had thought of a coat; the ferry was late, "
             b"and its lamps could be seen only when the wind turned.")
    assert ratio(b"")[0] == 0 and ratio(b"abc")[0] == 3 / 4
    assert ratio(np.random.default_rng(0).bytes(10_000))[0] == pytest.approx(1, abs=0.01)
    assert 1 < ratio(prose)[0] < 1.3 and ratio(prose * 50)[0] > 20
    far = np.random.default_rng(1).bytes(70_000)
    assert ratio(far + far)[0] < 1.01                       # too far back
