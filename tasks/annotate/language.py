"""The language of a document.

By default py3langid tells it: a naive Bayes model over byte n-grams of 140 languages that comes inside the
package (https://github.com/adbar/py3langid; after Lui and Baldwin 2012, https://aclanthology.org/P12-3005/).
Settings may name a fastText model instead: lid.176 (Joulin et al. 2016, https://arxiv.org/abs/1607.01759),
GlotLID (Kargaran et al. 2023, https://arxiv.org/abs/2310.16248) or any supervised one whose labels are languages.

Either sees at most `max_chars` characters of a text, half from its beginning and half from its middle, with
runs of white space as one space: the cost does not grow with the document.

Labels become ISO 639-1 codes where there is one: `__label__en`, `__label__eng` and `__label__eng_Latn` are all
"en"; the script is dropped; members of a macrolanguage with a two-letter code take that (`cmn_Hani` and `arb_Arab`
are "zh" and "ar", `nob` is "no"); every other code stays as the model gives it ("yue", "fil" as "tl").
Scores are probabilities from 0 to 1, and those of two models do not compare: py3langid's softmax is tempered by
the text's length, fastText's is not.
"""

import hashlib
import math
import os
import tempfile
import unicodedata
from functools import lru_cache

import fsspec
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.errors import UserError

UNDETERMINED = "und"         # ISO 639-2 for a language that cannot be told

# ISO 639-3 (and 639-2/B) to ISO 639-1, with the members of macrolanguages that language models use as labels.
ISO_639_1 = {code: pair.split(":")[0] for pair in """
aa:aar ab:abk ae:ave af:afr ak:aka,twi,fat am:amh an:arg ar:ara,arb,ary,arz,apc,ajp,acm,acq,aeb,ars,afb,apd as:asm
av:ava ay:aym,ayr az:aze,azj,azb ba:bak be:bel bg:bul bi:bis bm:bam bn:ben bo:bod,tib br:bre bs:bos ca:cat ce:che
ch:cha co:cos cr:cre cs:ces,cze cu:chu cv:chv cy:cym,wel da:dan de:deu,ger dv:div dz:dzo ee:ewe el:ell,gre en:eng
eo:epo es:spa et:est,ekk eu:eus,baq fa:fas,per,pes,prs ff:ful,fuv,fuf fi:fin fj:fij fo:fao fr:fra,fre fy:fry ga:gle
gd:gla gl:glg gn:grn,gug gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye,arm hz:her ia:ina
id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl,ice it:ita iu:iku,ike ja:jpn jv:jav ka:kat,geo kg:kon ki:kik kj:kua
kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau,knc ks:kas ku:kur,kmr,ckb kv:kom,kpv kw:cor ky:kir la:lat lb:ltz lg:lug
li:lim ln:lin lo:lao lt:lit lu:lub lv:lav,lvs mg:mlg,plt mh:mah mi:mri,mao mk:mkd,mac ml:mal mn:mon,khk mr:mar
ms:msa,may,zsm mt:mlt my:mya,bur na:nau nd:nde ne:nep,npi ng:ndo nl:nld,dut nn:nno no:nor,nob,nb nr:nbl nv:nav ny:nya
oc:oci oj:oji om:orm,gaz or:ori,ory os:oss pa:pan pi:pli pl:pol ps:pus,pbt pt:por qu:que,quy,quz rm:roh rn:run
ro:ron,rum ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag si:sin sk:slk,slo sl:slv sm:smo sn:sna so:som
sq:sqi,alb,als sr:srp ss:ssw st:sot su:sun sv:swe sw:swa,swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl,fil
tn:tsn to:ton tr:tur ts:tso tt:tat ty:tah ug:uig uk:ukr ur:urd uz:uzb,uzn,uzs ve:ven vi:vie vo:vol wa:wln wo:wol
xh:xho yi:yid,ydd yo:yor za:zha zh:zho,chi,cmn zu:zul""".split()
    for code in pair.split(":")[1].split(",")}

# Labels without a script may be Wikipedia's codes (lid.176), one of which is another language's in ISO 639-3.
WIKIPEDIA = {"als": "gsw"}


class Language(BaseModel):
    """How languages are identified."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = Field(None, description="A fastText model (lid.176.bin, GlotLID ...), a path or URI; "
                                                "by default the model inside py3langid.")
    model_sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$",
                                     description="The sha256 of that file, 64 hexadecimal digits; required with it.")
    max_chars: int = Field(1200, ge=50, le=100_000, description="The characters of a text that the model sees.")

    @model_validator(mode="after")
    def _pinned(self):
        if (self.model is None) != (self.model_sha256 is None):
            raise UserError("language.model and language.model_sha256 go together; "
                            "set both, or neither for the model inside py3langid")
        return self


def identify(texts: pa.Array, worth: np.ndarray, settings: Language) -> tuple[pa.Array, np.ndarray]:
    """Languages (string) and scores (float64) of `texts`; ("und", 0) where `worth` (bool, one a text) is false.

    Raises UserError when the model is missing, unreadable, or not the one that the settings pin.
    """
    classify = fasttext_classifier(settings.model, settings.model_sha256) if settings.model else embedded_classifier()
    codes, scores = [UNDETERMINED] * len(texts), np.zeros(len(texts))
    for i in np.flatnonzero(worth):
        codes[i], scores[i] = classify(sample(texts[int(i)].as_py(), settings.max_chars))
    return pa.array(codes, pa.string()), scores


def sample(text: str, max_chars: int) -> str:
    """At most `max_chars` characters of a text: its first half of that and as much from its middle, in one line."""
    if len(text) > max_chars:
        half = max_chars // 2
        middle = max(half, (len(text) - half) // 2)
        text = f"{text[:half]} {text[middle:middle + half]}"
    return " ".join(text.split())


def code(label: str) -> str:
    """The language code of a model's label: `__label__eng_Latn` is "en"."""
    name, _, script = label.removeprefix("__label__").replace("-", "_").lower().partition("_")
    return ISO_639_1.get(name, name) if script or name not in WIKIPEDIA else WIKIPEDIA[name]


@lru_cache(maxsize=1)
def embedded_classifier():
    """py3langid's model as a function from text to (code, probability).

    The arithmetic is the package's own (`LanguageIdentifier.classify` with norm_probs, which tempers the softmax by the
    square root of the text's bytes), in compiled code, since in Python it costs more than all other signals together.
    """
    from py3langid import modelio
    from py3langid.langid import MODEL_DIR, MODEL_FILE

    from tasks.annotate.kernel import add_likelihoods

    table, prior, labels, moves, rows, features = modelio.load_model(MODEL_DIR / MODEL_FILE)
    table = np.ascontiguousarray(table, dtype=np.float32)
    moves = np.asarray(moves, dtype=np.uint32)
    rows = np.asarray(rows, dtype=np.uint32) << np.uint32(8)
    features = np.asarray(features, dtype=np.int32)
    codes = [code(label) for label in labels]
    merge = np.array([codes.index(name) for name in codes])  # labels that share a code: their shares add up
    counts, seen = np.zeros(len(table), np.int32), np.empty(len(table), np.int32)
    for array in (table, moves, rows, features):
        array.setflags(write=False)

    def classify(text: str) -> tuple[str, float]:
        data = unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode()
        scores = np.array(prior, dtype=np.float32)
        if not add_likelihoods(np.frombuffer(data, np.uint8), moves, rows, features, table, counts, seen, scores):
            return UNDETERMINED, 0.0                        # nothing the model knows
        odds = np.exp((scores - scores.max()).astype(np.float64) / math.sqrt(len(data) or 1))
        shares = np.bincount(merge, odds, len(codes))
        best = int(shares.argmax())
        return codes[best], min(1.0, float(shares[best] / shares.sum()))

    return classify


@lru_cache(maxsize=2)
def fasttext_classifier(uri: str, sha256: str):
    """A pinned fastText model as a function from one line of text to (code, probability).

    Raises UserError when the file is missing, has another sha256, or is no supervised fastText model.
    """
    import fasttext

    path, temporary = _local_model(uri, sha256)
    try:
        model = fasttext.load_model(path)
        labelled = all(label.startswith("__label__") for label in model.get_labels())
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"language.model {uri} is no fastText model ({type(error).__name__}); "
                        f"name a .bin or .ftz file of a supervised model") from None
    finally:
        if temporary:
            os.unlink(path)
    if not labelled:
        raise UserError(f"language.model {uri} has no language labels; name a supervised fastText model")

    def classify(text: str) -> tuple[str, float]:
        labels, scores = model.predict(text)
        return (code(labels[0]), min(1.0, float(scores[0]))) if labels else (UNDETERMINED, 0.0)

    return classify


def _local_model(uri: str, sha256: str) -> tuple[str, bool]:
    """A local path of the model, checked against its sha256, and whether it is a temporary copy."""
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        local = "file" in filesystem.protocol
        with filesystem.open(path, "rb") as source:
            if local:
                found = hashlib.file_digest(source, "sha256").hexdigest()
            else:
                digest = hashlib.sha256()
                with tempfile.NamedTemporaryFile(suffix=".bin", delete=False) as copy:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        copy.write(block)
                path, found = copy.name, digest.hexdigest()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read language.model {uri} ({type(error).__name__}); "
                        f"check the path, or take it out of the settings to use the model inside py3langid") from None
    if found != sha256.lower():
        if not local:
            os.unlink(path)
        raise UserError(f"language.model {uri} has sha256 {found}, but language.model_sha256 is {sha256.lower()}; "
                        f"get the right file, or pin the sum of this one")
    return path, not local
