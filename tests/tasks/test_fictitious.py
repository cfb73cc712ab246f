import random
import re

import phonenumbers
import pytest

from tasks.scrub import Scrub, apply, find
from tasks.scrub.pseudonyms import Pseudonyms

KEY = b"a key for tests, no secret at all"
REGIONS = ("US", "GB", "DE", "FR", "JP")
# What national numbers look like behind the trunk's 0, # for any digit, and what ranges for examples look like.
PLANS = {"US": (1, "", "206953#### 207####### 415####### 7##2###### 2025######", r"...55501.."),
         "GB": (44, "0", "207####### 2######### 7######### 1#########", r"2079460...|7700900...|1..4960...|1632960..."
                                                                       r"|1914980...|2920180..."),
         "DE": (49, "0", "30###### 15######### 89#######", "3023125...|4066969...|6990009...|8999998..."),
         "FR": (33, "0", "1######## 6########", "19900....|63998...."),
         "JP": (81, "0", "353###### 90######## 3########", "-")}


def numbers(n):
    """n pairs (calling code, number with its trunk's 0) that are valid and in no range for examples."""
    draw, made = random.Random(7), []
    while len(made) < n:
        code, trunk, forms, reserved = PLANS[draw.choice(REGIONS)]
        digits = "".join(str(draw.randrange(10)) if sign == "#" else sign for sign in draw.choice(forms.split()))
        if not re.fullmatch(reserved, digits) and phonenumbers.is_valid_number(
                phonenumbers.PhoneNumber(code, int(digits))):
            made.append((code, trunk + digits))
    return made


def test_a_valid_number_is_never_taken_for_a_fake():
    """A fake's code of four digits, tried at several lengths, holds for some in 10,000 numbers by chance."""
    fakes = Pseudonyms(KEY)
    values = [f"+{code} {number.removeprefix('0')}" if place % 2 or code in (33, 81) else number
              for place, (code, number) in enumerate(numbers(20_000))]
    assert not [value for value in values if fakes.is_fake("PHONE", value, REGIONS[:3])]


def test_a_number_of_maine_is_not_one_for_british_films():
    assert Pseudonyms(KEY).is_fake("PHONE", "020 7946 0123", ("US", "GB"))
    assert not Pseudonyms(KEY).is_fake("PHONE", "(207) 946-0123", ("US", "GB"))
    assert not Pseudonyms(KEY).is_fake("PHONE", "(207) 946-0123", ("GB", "US"))
    assert not Pseudonyms(KEY).is_fake("PHONE", "03-5301-9353", REGIONS)     # of Tokyo; France keeps its 03 53 01


@pytest.fixture
def keyed(tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    return Scrub(replacement="pseudonym", key_file=str(tmp_path / "key"), regions=REGIONS)


def test_no_number_stays_and_scrubbing_twice_is_scrubbing_once(keyed):
    values = [number for _, number in numbers(300)]
    texts = [f"call me at {value} tomorrow" for value in values]
    once = [apply(text, found) for text, found in zip(texts, find(texts, keyed), strict=True)]
    assert not [text for text, value in zip(once, values, strict=True) if value in text]
    assert not any(find(once, keyed))
