"""Character references of a short text decoded, however long they are."""

import html
import re

_DECIMAL = re.compile(r"&#(?=[0-9])0*+([0-9]{0,8})[0-9]*+")


def unescape(text: str) -> str:
    """`text` with its character references decoded, as `html.unescape`, whose int() takes 4,300 digits at most.

    Eight digits that begin with none but a zero are beyond Unicode already, and read as U+FFFD.
    """
    try:
        return html.unescape(text)
    except ValueError:
        return html.unescape(_DECIMAL.sub(lambda match: f"&#{match[1] or 0}", text))
