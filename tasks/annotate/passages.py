"""Which parts of a text a language model reads."""

PASSAGES = 8


def passages(text: str, max_chars: int) -> list[str]:
    """Up to PASSAGES or so pieces of a text, together at most `max_chars` characters, each on one line; none empty.

    A text within the limit is taken whole, its lines joined until a piece has an eighth of the limit. Of a longer one,
    an eighth of the limit is read at eight places evenly apart, from the beginning of a line where one begins there.
    """
    size = max(1, max_chars // PASSAGES)
    if len(text) <= max_chars:
        pieces, piece = [], ""
        for line in text.split("\n"):
            piece = f"{piece} {line}"
            if len(piece) > size:
                pieces.append(piece)
                piece = ""
        pieces.append(piece)
    else:
        edges = [len(text) * k // PASSAGES for k in range(PASSAGES + 1)]
        pieces = []
        for begin, end in zip(edges, edges[1:], strict=False):
            line = text.find("\n", begin, max(begin, end - size)) + 1 if begin else 0
            begin = line or begin
            pieces.append(text[begin:begin + size])
    return [joined for piece in pieces if (joined := " ".join(piece.split()))]
