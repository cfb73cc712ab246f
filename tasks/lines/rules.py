"""What makes a line one that is cut, and the phrases by which it is known.

Sources: C4, Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.2, and its code in
tensorflow/datasets (text/c4_utils.py); RefinedWeb, Penedo et al. 2023, https://arxiv.org/abs/2306.01116 (line-wise
corrections, appendix); DCLM, Li et al. 2024, https://arxiv.org/abs/2406.11794 (its reproduction of them).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tasks.words import gram_hash

# The kernel knows them by their place here; of several that a line breaks the first one is named.
RULES = {
    "line_javascript": "C4: holds the word javascript, as warnings that it should be turned on do",
    "line_policy": "C4: names terms of use, a privacy or cookie policy, or the use of cookies",
    "line_cookies": "a consent banner: at most 25 words that ask for consent to cookies or tell how to refuse it",
    "line_navigation": "RefinedWeb, with more phrases of the kind: at most 10 words that are no sentence, and begins "
                       "with `sign in`, ends with `read more`, speaks of a shopping cart, or offers to share",
    "line_counter": "RefinedWeb: a number and what is counted (`3 likes`)",
    "line_numbers": "RefinedWeb: nothing but numbers",
    "line_uppercase": "RefinedWeb: more than half of its characters are capital letters",
    "line_one_word": "RefinedWeb: a single word",
    "line_words": "C4: fewer words than `min_words` (C4: of runs between white space)",
    "line_word_length": "C4: a run without white space of more than `max_word_length` characters",
    "line_end": "C4: does not end with a full stop, question or exclamation mark or a quotation mark, or ends with an "
                "ellipsis; closing brackets behind the mark are passed over, other scripts' marks count",
}
PRESETS = {
    "c4": ("line_javascript", "line_policy", "line_words", "line_word_length", "line_end"),
    # datatrove's FineWeb pipeline runs C4's lines without the rule on their ends.
    "fineweb": ("line_javascript", "line_policy", "line_words", "line_word_length"),
    "refinedweb": ("line_navigation", "line_counter", "line_numbers", "line_uppercase", "line_one_word"),
    "boilerplate": ("line_cookies", "line_navigation", "line_counter"),
}

ANYWHERE, AT_START, AT_END, COUNTED = 1, 2, 4, 8  # where in its line a phrase counts


class Phrases(NamedTuple):
    rule: str
    where: int
    phrases: str            # one a line; a hyphen separates words as a space does


PHRASES = (
    Phrases("line_javascript", ANYWHERE, "javascript"),
    Phrases("line_policy", ANYWHERE, """terms of use
        privacy policy
        cookie policy
        uses cookies
        use of cookies
        use cookies"""),
    Phrases("line_cookies", ANYWHERE, """accept cookies
        accept all cookies
        allow cookies
        allow all cookies
        reject cookies
        reject all cookies
        decline cookies
        disable cookies
        cookie settings
        cookie preferences
        cookies settings
        cookies preferences
        manage cookies
        cookie consent
        cookie notice
        strictly necessary cookies
        this site uses cookies
        this website uses cookies
        our use of cookies
        the use of cookies
        our cookie policy
        cookies to improve
        cookies to ensure
        cookies to enhance
        cookies to provide
        cookies to personalise
        cookies to personalize
        cookies to analyse
        cookies to analyze
        cookies to deliver
        cookies to offer you
        cookies to give you
        diese website verwendet cookies
        wir verwenden cookies
        verwendung von cookies
        alle cookies akzeptieren
        nous utilisons des cookies
        utilisation de cookies
        utilisation des cookies
        accepter les cookies
        utilizamos cookies
        uso de cookies
        aceptar cookies
        aceptar las cookies
        utilizziamo i cookie
        utilizza i cookie
        uso dei cookie
        accetta i cookie
        usamos cookies
        aceitar cookies
        wij gebruiken cookies
        deze website gebruikt cookies
        gebruik van cookies
        cookies accepteren"""),
    Phrases("line_navigation", AT_START, """sign in
        signin
        sign up
        log in
        login
        register now
        skip to content
        skip to main content
        jump to navigation
        toggle navigation
        back to top
        share this
        share on facebook
        share on twitter
        share via
        follow us on"""),
    Phrases("line_navigation", AT_END, """read more
        continue reading
        learn more
        show more
        view more
        see more
        load more
        click here
        read the full story"""),
    Phrases("line_navigation", ANYWHERE, """items in cart
        item in cart
        items in your cart
        add to cart
        add to basket
        add to wishlist
        shopping cart
        your cart is empty"""),
    Phrases("line_counter", COUNTED, """like
        likes
        share
        shares
        comment
        comments
        reply
        replies
        retweet
        retweets
        repost
        reposts
        quotes
        bookmarks
        upvotes
        downvotes
        votes
        downloads
        views
        reads
        followers
        following
        subscribers
        reviews
        ratings
        points"""),
)
LONGEST = 4                 # words of a phrase


@lru_cache(maxsize=1)
def phrase_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An open-addressing table of the phrases' hashes: uint64 keys of shape (slots,), 0 where empty, and uint8 of shape
    (slots, rules): where in a line the phrase counts for each rule. Then bool (4096,): whether a word whose hash has
    these low bits may end a phrase."""
    found: dict[int, dict[int, int]] = {}
    enders = np.zeros(4096, np.bool_)
    names = list(RULES)
    for group in PHRASES:
        for line in group.phrases.splitlines():
            words = tuple(line.casefold().replace("-", " ").split())
            assert 0 < len(words) <= LONGEST, line
            enders[gram_hash(words[-1:]) & 4095] = True
            places = found.setdefault(gram_hash(words), {})
            places[names.index(group.rule)] = places.get(names.index(group.rule), 0) | group.where
    size = 1 << (4 * len(found)).bit_length()
    keys, places = np.zeros(size, np.uint64), np.zeros((size, len(RULES)), np.uint8)
    for key in sorted(found):
        slot = key & size - 1
        while keys[slot]:
            slot = slot + 1 & size - 1
        keys[slot] = key
        for rule, where in found[key].items():
            places[slot, rule] = where
    for array in (keys, places, enders):
        array.setflags(write=False)
    return keys, places, enders
