"""Addresses of cryptocurrencies, told from other strings by the checksums they carry.

Bitcoin and its kin: Base58Check (https://en.bitcoin.it/wiki/Base58Check_encoding) and Bech32/Bech32m (BIP 173, BIP
350). Ethereum: 20 bytes in hexadecimal, whose capitals are a checksum (EIP-55); an address in one case has none and
counts only near a word that names it.
"""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
from numba import njit

from tasks.scrub.context import Names

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
# Version bytes: Bitcoin 00 and 05, Litecoin 30 and 32, Dogecoin 1e and 16, Tron 41; Bitcoin's test network 6f and c4
# holds nothing of value.
_VERSIONS = frozenset([0x00, 0x05, 0x30, 0x32, 0x1E, 0x16, 0x41])
_PATTERN = re.compile(
    r"(?<![A-Za-z0-9])(?:[13LMDTA9][1-9A-HJ-NP-Za-km-z]{24,34}|(?:bc|ltc)1[02-9ac-hj-np-z]{11,71}"
    r"|(?:BC|LTC)1[02-9AC-HJ-NP-Z]{11,71}|0x[0-9A-Fa-f]{40})(?![A-Za-z0-9])")
_ETHEREUM = Names(["eth~|ether~|wallet~|erc20|address~|contract~|donat~|token~"])
GATE = (r"(?:^|[^A-Za-z0-9])[13LMDTA9][1-9A-HJ-NP-Za-km-z]{24}|(?:bc|ltc)1[02-9ac-hj-np-z]{11}"
        r"|(?:BC|LTC)1[02-9AC-HJ-NP-Z]{11}|0x[0-9A-Fa-f]{40}")


def wallets(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) in code points of the addresses in a text."""
    for match in _PATTERN.finditer(text):
        value = match.group()
        if value.startswith("0x"):
            digits = value[2:]
            if digits == digits.lower() or digits == digits.upper():
                beside = text[max(0, match.start() - 60):match.start()] + " " + text[match.end():match.end() + 30]
                good = not digits.isdigit() and bool(_ETHEREUM.within(beside))
            else:
                good = is_eip55(digits)
        elif value[:2].lower() == "bc" or value[:3].lower() == "ltc":
            good = is_bech32(value)
        else:
            good = is_base58check(value)
        if good:
            yield match.span()


def is_base58check(text: str) -> bool:
    """Whether text is 25 bytes in Base58 that end with the first four of their double SHA-256, of a known version."""
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    if number >> 200:
        return False
    data = number.to_bytes(25, "big")
    leading = len(text) - len(text.lstrip("1"))
    if len(data) - len(data.lstrip(b"\0")) != leading:  # a 1 stands for each zero byte at the head
        return False
    digest = hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()
    return data[0] in _VERSIONS and data[21:] == digest[:4]


def is_bech32(text: str) -> bool:
    """Whether a segregated witness address has the checksum of its witness version: Bech32 for 0, Bech32m after."""
    prefix, _, data = text.lower().rpartition("1")
    values = [_BECH32.index(character) for character in data]
    state = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values]:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> bit & 1 else 0
    return state == (1 if values[0] == 0 else 0x2BC830A3)


def is_eip55(digits: str) -> bool:
    """Whether the capitals among 40 hexadecimal digits are those of EIP-55."""
    lower = digits.lower()
    digest = keccak256(np.frombuffer(lower.encode(), np.uint8)).tobytes().hex()
    return all(int(nibble, 16) >= 8 if digit.isupper() else int(nibble, 16) < 8
               for digit, nibble in zip(digits, digest, strict=False) if digit.isalpha())


_ROUND = np.array([
    0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000, 0x000000000000808B,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008A, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000A, 0x000000008000808B, 0x800000000000008B, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008], np.uint64)
_ROTATION = np.array([[0, 36, 3, 41, 18], [1, 44, 10, 45, 2], [62, 6, 43, 15, 61], [28, 55, 25, 21, 56],
                      [27, 20, 39, 8, 14]], np.uint64)


@njit(cache=True)
def _keccak256(message, constants, rotation):
    lanes = np.zeros((5, 5), np.uint64)
    for i in range(len(message)):
        lanes[i // 8 % 5, i // 40] ^= np.uint64(message[i]) << np.uint64(8 * (i % 8))
    lanes[len(message) // 8 % 5, len(message) // 40] ^= np.uint64(1) << np.uint64(8 * (len(message) % 8))
    lanes[1, 3] ^= np.uint64(0x80) << np.uint64(56)     # the last byte of the 136 that a block has
    for turn in range(24):
        parity = np.zeros(5, np.uint64)
        for x in range(5):
            for y in range(5):
                parity[x] ^= lanes[x, y]
        moved = np.zeros((5, 5), np.uint64)
        for x in range(5):
            right = parity[(x + 1) % 5]
            mix = parity[(x + 4) % 5] ^ (right << np.uint64(1) | right >> np.uint64(63))
            for y in range(5):
                lane, by = lanes[x, y] ^ mix, rotation[x, y]
                moved[y, (2 * x + 3 * y) % 5] = lane << by | lane >> (np.uint64(64) - by) if by else lane
        for x in range(5):
            for y in range(5):
                lanes[x, y] = moved[x, y] ^ (~moved[(x + 1) % 5, y] & moved[(x + 2) % 5, y])
        lanes[0, 0] ^= constants[turn]
    out = np.empty(32, np.uint8)
    for i in range(32):
        out[i] = lanes[i // 8, 0] >> np.uint64(8 * (i % 8)) & np.uint64(255)
    return out


def keccak256(message: np.ndarray) -> np.ndarray:
    """The Keccak-256 digest (uint8, 32) of at most 135 bytes, padded as Ethereum does, not as SHA-3."""
    if len(message) > 135:
        raise ValueError("keccak256 takes one block of at most 135 bytes")
    return _keccak256(message, _ROUND, _ROTATION)
