"""The language model that needs no download: py3langid first, CLD2 where that is in doubt.

py3langid (https://github.com/adbar/py3langid; after Lui and Baldwin 2012, https://aclanthology.org/P12-3005/) is a
naive Bayes model over byte n-grams with 140 languages. Its table and arithmetic are used, compiled, passage by
passage; a document's likelihood is the product of its passages'. Where it is less than SURE, or names a language that
is often the nearest neighbour of one it does not know (Tswana is near Pedi, Tsonga near Xhosa, Maori near anything),
CLD2 (https://github.com/CLD2Owners/cld2: a table of character quadgrams for 165 languages) is asked too, and both are
weighed by a conditional logit.

The scores are calibrated: py3langid's log-odds are divided by a temperature that grows with the sample's bytes, since
n-grams of one text do not occur independently (its own rule is their square root). The nine numbers below were fitted
by maximum likelihood on sentences and on joined sentences of 75 languages; folds that leave languages out, and another
collection of sentences, give the same reliability (`tests/benchmarks/language_quality.py`).
"""

import math
import re
import unicodedata
from functools import lru_cache

import numpy as np

from tasks.annotate.labels import UNDETERMINED, code
from tasks.annotate.naive_bayes import naive_bayes

SURE = 0.95                  # below that CLD2 is asked too
SECOND_SURE = 0.95           # what a passage needs to count as one in another language

# Temperature = SCALE * (bytes / 100) ** EXPONENT of log-likelihoods in nats.
SCALE, EXPONENT = 6.65, 0.75

# The logit of a candidate language, once CLD2 was asked.
TEMPERED = 0.76              # times py3langid's tempered log-likelihood against its best
ABSENT = 1.85                # a language that py3langid does not know, which only CLD2 can have named
SHARE = 0.93                 # times CLD2's share of the text for the language
UNSEEN = -2.93               # a language that CLD2 does not know

# Languages that py3langid may be believed alone: those without a close relative that it lacks.
ALONE = frozenset("""am ar az be bg bn ca cs da de el en es et eu fa fi fr ga gl gu hi hr hu hy id is it ja ka kk
km kn ko lo lt mk ml mn mr ms my ne nl nn no or pa pl ps pt ro ru si sk sl sq sr sv ta te th tr ug uk ur uz vi
zh""".split())

# What CLD2 calls otherwise.
_CLD2_CODES = {"iw": "he", "zh-Hant": "zh", "jw": "jv", "mo": "ro", "sh": "sr"}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")      # CLD2 refuses these
_CANDIDATES = 8

# Letters that a language cannot do without (blocks of https://www.unicode.org/Public/UNIDATA/Blocks.txt). A script that
# no model knows shares bytes with one that a model does, and is surely taken for it: runes for Amharic.
_LETTERS = {language: re.compile(f"[{blocks}]") for blocks, languages in {
    "\u0370-\u03ff\u1f00-\u1fff": "el", "\u0400-\u052f": "ru uk be bg mk mn kk ky tg ba tt", "\u0530-\u058f": "hy",
    "\u0590-\u05ff\ufb1d-\ufb4f": "he yi", "\u0600-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff": "ar fa ur ps ug sd",
    "\u0780-\u07bf": "dv", "\u0900-\u097f": "hi mr ne sa", "\u0980-\u09ff": "bn as", "\u0a00-\u0a7f": "pa",
    "\u0a80-\u0aff": "gu", "\u0b00-\u0b7f": "or", "\u0b80-\u0bff": "ta", "\u0c00-\u0c7f": "te", "\u0c80-\u0cff": "kn",
    "\u0d00-\u0d7f": "ml", "\u0d80-\u0dff": "si", "\u0e00-\u0e7f": "th", "\u0e80-\u0eff": "lo",
    "\u0f00-\u0fff": "bo dz", "\u1000-\u109f\uaa60-\uaa7f": "my", "\u10a0-\u10ff\u1c90-\u1cbf": "ka",
    "\u1200-\u139f\u2d80-\u2ddf": "am ti", "\u13a0-\u13ff\uab70-\uabbf": "chr", "\u1780-\u17ff": "km",
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af": "ko", "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff": "ja zh wuu yue",
}.items() for language in languages.split()}
_FEWEST_LETTERS = 0.2        # of all letters: names and code in other scripts are common


class Embedded:
    """The models, loaded. `codes` are py3langid's languages, sorted."""

    def __init__(self):
        import pycld2

        self.table, self.prior, self.moves, self.states, labels = naive_bayes()
        labels = labels.tobytes().decode().split()
        self.weights = np.log1p(np.arange(4096)).astype(np.float32)
        self.weights.setflags(write=False)
        self.codes, self.first, self.language = np.unique([code(label) for label in labels], return_index=True,
                                                          return_inverse=True)
        self.repeated = np.setdiff1d(np.arange(len(labels)), self.first)    # labels that share their code with another
        self.alone = np.isin(self.codes, list(ALONE))
        self.known = frozenset(self.codes.tolist())
        self.cld2 = pycld2
        detected = set(pycld2.DETECTED_LANGUAGES)
        self.cld2_codes = {short: code(_CLD2_CODES.get(short, short)) for name, short in pycld2.LANGUAGES}
        self.cld2_known = frozenset(self.cld2_codes[short] for name, short in pycld2.LANGUAGES if name in detected
                                     and not short.startswith("xx-"))       # a script, no language

    def likelihoods(self, passages: list[bytes]) -> np.ndarray:
        """float32 of shape (passages, labels), without the prior; all zeros where the model knows nothing."""
        from tasks.annotate.langid_kernel import likelihoods

        offsets = np.zeros(len(passages) + 1, np.int64)
        np.cumsum([len(passage) for passage in passages], out=offsets[1:])
        offsets.setflags(write=False)
        scores = np.zeros((len(passages), self.table.shape[1]), np.float32)
        if passages:
            likelihoods(np.frombuffer(b"".join(passages), np.uint8), offsets, self.moves, self.states, self.table,
                        self.weights, scores)
        return scores

    def log_shares(self, tempered: np.ndarray) -> np.ndarray:
        """Log-probabilities of `codes` from tempered log-likelihoods of labels: (n, labels) to (n, codes)."""
        odds = np.exp(tempered - tempered.max(axis=1, keepdims=True))
        shares = odds[:, self.first]
        for label in self.repeated:
            shares[:, self.language[label]] += odds[:, label]
        return np.log(np.maximum(shares / shares.sum(axis=1, keepdims=True), 1e-300))

    def second_opinion(self, text: str) -> dict[str, float]:
        """CLD2's answers, at most three, and the share of the text that each has, from 0 to 1."""
        try:
            _, _, answers = self.cld2.detect(_UNPRINTABLE.sub(" ", text), bestEffort=True)
        except self.cld2.error:
            return {}
        shares: dict[str, float] = {}
        for _, short, percent, _ in answers:
            language = self.cld2_codes.get(short)
            if language in self.cld2_known:                 # not "un"
                shares[language] = shares.get(language, 0.0) + percent / 100
        return shares


@lru_cache(maxsize=1)
def model() -> Embedded:
    """The models of this process."""
    return Embedded()


def temperature(n_bytes: np.ndarray) -> np.ndarray:
    """What log-likelihoods of `n_bytes` of text are divided by."""
    return SCALE * (np.maximum(n_bytes, 1) / 100) ** EXPONENT


def prepare(passage: str) -> bytes:
    """A passage as py3langid reads it: composed, and in lower case if all of it is in upper case."""
    return unicodedata.normalize("NFC", passage.lower() if passage.isupper() else passage).encode()


def classify(documents: list[list[str]]) -> tuple[list[str], np.ndarray, np.ndarray, list[str | None]]:
    """Languages, scores, other-language fractions and second languages of documents: lists of passages, none empty.

    See tasks.annotate.language for what they mean.
    """
    if not documents:
        return [], np.empty(0), np.empty(0), []
    models = model()
    passages = [prepare(passage) for document in documents for passage in document]
    sizes = np.array([len(passage) for passage in passages], np.float64)
    counts = np.array([len(document) for document in documents])
    owner, rows = np.repeat(np.arange(len(documents)), counts), np.arange(len(documents))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    scores = models.likelihoods(passages)
    total, total_size = np.add.reduceat(scores, starts, axis=0, dtype=np.float64), np.add.reduceat(sizes, starts)
    blind = ~total.any(axis=1)
    shares = models.log_shares((total + models.prior) / temperature(total_size)[:, None])
    best = shares.argmax(axis=1)
    sure = np.exp(shares[rows, best])

    scores += models.prior.astype(np.float32)
    theirs = models.language[scores.argmax(axis=1)]
    other = np.flatnonzero(theirs != best[owner])
    alone = models.log_shares(scores[other] / temperature(sizes[other])[:, None])
    other = other[alone[np.arange(len(other)), theirs[other]] >= np.log(SECOND_SURE)]

    codes = models.codes[best].tolist()
    doubtful = np.flatnonzero(blind | (sure < SURE) | ~models.alone[best])
    likeliest = np.argsort(-shares[doubtful], axis=1, kind="stable")[:, :_CANDIDATES]
    against_best = np.take_along_axis(shares[doubtful], likeliest, axis=1)
    against_best -= against_best[:, :1]
    for i, named, tempered in zip(doubtful.tolist(), models.codes[likeliest].tolist(), against_best.tolist(),
                                  strict=True):
        answers = models.second_opinion(" ".join(documents[i]))
        codes[i], sure[i] = _weighed(models, {} if blind[i] else dict(zip(named, tempered, strict=True)), answers)

    # Where CLD2 was right about the whole, a passage is in another language if that is neither CLD2's nor one that is
    # often the nearest neighbour of a language which py3langid does not know.
    final = np.array(codes)[owner[other]]
    other = other[(final == models.codes[best[owner[other]]])
                  | (final != models.codes[theirs[other]]) & models.alone[theirs[other]]]
    second: list[str | None] = [None] * len(documents)
    fractions = np.bincount(owner[other], sizes[other], len(documents)) / np.maximum(total_size, 1)
    for i in np.unique(owner[other]):
        mine = other[owner[other] == i]
        second[i] = models.codes[np.bincount(theirs[mine], sizes[mine]).argmax()].item()
    for i, language in enumerate(codes):
        if language in _LETTERS and not _written(documents[i], _LETTERS[language]):
            codes[i], sure[i], fractions[i], second[i] = UNDETERMINED, 0.0, 0.0, None
    return codes, sure, fractions, second


def _written(document: list[str], letters: re.Pattern) -> bool:
    """Whether a passage is written in these letters; others may be full of names and code in Latin ones."""
    return any(found >= _FEWEST_LETTERS * sum(map(str.isalpha, passage)) for passage in document
               if (found := len(letters.findall(passage))))


def _weighed(models: Embedded, likely: dict[str, float], answers: dict[str, float]) -> tuple[str, float]:
    """The language and its probability, from py3langid's tempered log-likelihoods against its best (the likeliest
    languages, in order) and CLD2's shares.
    """
    if not likely and not answers:
        return UNDETERMINED, 0.0                            # nothing that either knows
    floor = min(likely.values(), default=0.0)
    logits = {language: (TEMPERED * likely.get(language, floor) if language in models.known else ABSENT)
              + SHARE * answers.get(language, 0.0) + (0.0 if language in models.cld2_known else UNSEEN)
              for language in (*likely, *answers)}
    best = max(logits, key=logits.get)
    return best, 1 / sum(math.exp(logit - logits[best]) for logit in logits.values())
