"""A small crawl with everything in it, the same bytes for the same seed."""

import gzip
import random
from pathlib import Path

WORDS = (
    "the of and to in is that it was for on are with as his they be at one have this from by hot word but what some "
    "we can out other were all there when up use your how said an each she which do their time if will way about many "
    "then them write would like so these her long make thing see him two has look more day could go come did number "
    "sound no most people my over know water than call first who may down side been now find any new work part take "
    "get place made live where after back little only round man year came show every good me give our under name very "
    "through just form sentence great think say help low line differ turn cause much mean before move right boy old "
    "too same tell does set three want air well also play small end put home read hand port large spell add even land "
    "here must big high such follow act why ask men change went light kind off need house picture try us again animal "
    "point mother world near build self earth father head stand own page should country found answer school grow study"
).split()
EMAIL = "jonas.planted@example.org"


def prose(rng: random.Random, words: int) -> str:
    sentences = []
    while words > 0:
        n = rng.randint(6, 14)
        sentences.append(" ".join(rng.choice(WORDS) for _ in range(n)).capitalize() + ".")
        words -= n
    paragraphs = [" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4)]
    return "".join(f"<p>{p}</p>" for p in paragraphs)


def page(body: str, title: str = "A page") -> bytes:
    return f"<html><head><title>{title}</title></head><body><main>{body}</main></body></html>".encode()


def record(
    url: str, body: bytes, status: str = "200 OK", media: str = "text/html; charset=utf-8", second: int = 0
) -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2024-05-01T00:00:{second % 60:02d}Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{abs(hash_of(url, second)):012x}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    ).encode()
    return gzip.compress(head + http + b"\r\n\r\n", mtime=0)


def hash_of(url: str, second: int) -> int:
    return int.from_bytes(f"{url}{second}".encode()[-6:], "big")


def write_crawl(folder: Path, files: int = 3, pages: int = 30, seed: int = 1) -> list[Path]:
    """WARC files of prose, exact and near copies, short pages, errors, images, personal data and a damaged member."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, made, earlier = random.Random(seed), [], []
    for f in range(files):
        members = []
        for i in range(pages):
            url = f"https://site{i % 7}.example/{seed}/{f}/{i}.html"
            kind = i % 10
            body = prose(rng, rng.randint(60, 160))
            if kind == 3 and earlier:
                body = rng.choice(earlier)
            elif kind == 4 and earlier:
                body = rng.choice(earlier) + "<p>One more line.</p>"
            elif kind == 5:
                body = "<p>Too short.</p>"
            elif kind == 6:
                body += f"<p>Write to {EMAIL} for more about the work of this place and its people.</p>"
            else:
                earlier.append(body)
            if kind == 7:
                members.append(record(url, b"gone", status="404 Not Found", second=i))
            elif kind == 8:
                members.append(record(url, b"\x89PNG....", media="image/png", second=i))
            else:
                members.append(record(url, page(body), second=i))
        if f == 1:
            damaged = bytearray(members[0])
            damaged[len(damaged) // 2] ^= 0xFF
            damaged[len(damaged) // 2 + 1] ^= 0xFF
            members[0] = bytes(damaged)
        path = folder / f"crawl-{seed}-{f:02d}.warc.gz"
        path.write_bytes(b"".join(members))
        made.append(path)
    return made


SETTINGS = {
    "ingest": {"split_bytes": 6000},
    "filter": {
        "presets": [],
        "language": {"enabled": False},
        "language_score": {"enabled": False},
        "gopher_words": {"enabled": True, "min": 30},
    },
    "tokenize": {"vocab_size": 400, "shard_tokens": 4000, "min_shards": 2},
}
