"""What presidio finds, for pii_quality.py, which runs this with a Python that has presidio-analyzer.

    python tests/benchmarks/peer_presidio.py cases|sentences|text FILE < JSON lines > JSON lines

`cases`: rows {text, recognizer, entities}: spans of that one recognizer, at any score. `sentences` and `text`: rows
{text, entities}: the whole engine with those entities; the last line of `text` is the seconds of CPU time. A blank
English spaCy pipeline whose lemmas are the words in lower case stands in for a trained one: patterns, checksums and
context words need no more.
"""

import importlib
import json
import sys
import time

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer import predefined_recognizers as predefined
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from spacy.language import Language

# They take a model, or find what is no personal number.
PHONES = {"ph_mobile_number_recognizer": ("PH",), "tr_phone_number_recognizer": ("TR",)}
OTHERS = ("Spacy", "Stanza", "Transformers", "Gliner", "GLiNER", "Hugging", "Azure", "Ahds", "Basic", "Url", "Date",
          "Lang", "Uuid")


@Language.component("lower_lemmas")
def lower_lemmas(doc):
    for token in doc:
        token.lemma_ = token.lower_
    return doc


class Blank(SpacyNlpEngine):
    def __init__(self):
        super().__init__()
        blank = spacy.blank("en")
        blank.add_pipe("lower_lemmas")
        blank.max_length = 10**9
        self.nlp = {"en": blank}


def single(name: str):
    """The recognizer of a test file such as `us_ssn_recognizer`."""
    wanted = name.replace("_", "")
    for attribute in dir(predefined):
        if attribute.lower() in (wanted, wanted.replace("certificatenumber", "medicallicense"),
                                 wanted.replace("defuehrerschein", "dedriverlicense")):
            return getattr(predefined, attribute)
    raise LookupError(name)


def special(name: str):
    return {"uk_nhs_recognizer": "NhsRecognizer", "us_bank_recognizer": "UsBankRecognizer",
            "certificate_number_recognizer": "MedicalLicenseRecognizer", "mac_recognizer": "MacAddressRecognizer",
            "ip_recognizer": "IpRecognizer",
            "us_driver_license_recognizer": "UsLicenseRecognizer"}.get(name)


def cases() -> None:
    made, blank = {}, Blank()
    for line in sys.stdin:
        row = json.loads(line)
        name = row["recognizer"]
        if name not in made:
            try:
                if name in PHONES:      # the release has no recognizer of its own for them
                    made[name] = predefined.PhoneRecognizer(supported_regions=PHONES[name])
                else:
                    made[name] = (getattr(predefined, special(name) or "", None) or single(name))()
            except (LookupError, ImportError, TypeError) as error:
                made[name] = None
                print(name, error, file=sys.stderr)
        recognizer = made[name]
        if recognizer is None:
            print(json.dumps(None))
            continue
        artifacts = blank.process_text(row["text"], "en")
        wanted = ["PHONE_NUMBER"] if name in PHONES else row["entities"][:1]
        found = recognizer.analyze(row["text"], wanted, artifacts)
        print(json.dumps(sorted({(r.start, r.end) for r in found or ()})))


def engine(phone_regions) -> AnalyzerEngine:
    registry = RecognizerRegistry()
    for name in dir(predefined):
        kind = getattr(predefined, name)
        if name.endswith("Recognizer") and not name.startswith(OTHERS):
            try:
                options = {"supported_regions": phone_regions} if name == "PhoneRecognizer" else {}
                made = kind(supported_language="en", **options)
                registry.add_recognizer(made)
            except (ImportError, TypeError, ValueError) as error:
                print(name, type(error).__name__, file=sys.stderr)
    return AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])


def texts(timed: bool) -> None:
    analyzer, regions, seconds = None, None, 0.0
    for line in sys.stdin:
        row = json.loads(line)
        if analyzer is None or row.get("regions", regions) != regions:
            regions = row.get("regions", ["US", "GB"])
            analyzer = engine(regions)
        began = time.process_time()
        found = analyzer.analyze(row["text"], "en", entities=row["entities"], score_threshold=row.get("threshold", 0))
        seconds += time.process_time() - began
        print(json.dumps([(r.entity_type, r.start, r.end, r.score) for r in found]))
    if timed:
        print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    importlib.invalidate_caches()
    {"cases": cases, "sentences": lambda: texts(False), "text": lambda: texts(True)}[sys.argv[1]]()
