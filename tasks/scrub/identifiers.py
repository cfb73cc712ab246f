"""The identifiers with a number: of persons, of what persons own, and of those who act in business.

One row a type and strength. `alone` are the ways of writing it that together with its check leave so little to chance
that it stands for itself: groups of its own, letters at fixed places, a checksum beside a date. `named` are those that
count only where a word near it says what it is, or where the text is nothing but such values, as a field is: a bare run
of nine digits passes a check digit one time in ten. Shapes are explained at `tasks.scrub.candidates.expand`.

The checks are the issuers' (cited at each in `tasks.scrub.check_digits`, or by python-stdnum in its modules); shapes
without a check follow Presidio's recognizers (https://github.com/microsoft/presidio, predefined_recognizers).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from tasks.scrub import check_digits as own
from tasks.scrub.candidates import REACH, Trie, expand, trie
from tasks.scrub.checks import is_card


class Identifier(NamedTuple):
    """How an identifier is written and known."""

    type: str
    region: str                         # ISO 3166 of the country; "" for none
    alone: str                          # shapes that need no word, separated by |
    named: str                          # shapes that need one
    words: str = ""                     # that name it (tasks.scrub.context.Names)
    check: Callable[[str], bool] | None = None   # of capitals and digits without separators
    pattern: str = ""                   # they match it wholly
    glued: bool = False                 # also right behind a small letter


def _of(module: str) -> Callable[[str], bool]:
    return partial(own.library, module)


_CARD = "card|cards|cardnumber|cc|credit|debit|visa|mastercard|amex|uatp|kreditkart~|carte|tarjeta|carta|cartão"
_SSN = "ssn|ssns|social security|soc sec|itin|tax id|taxpayer~"
_TAX_AU = "tfn|tax file~"
_PASSPORT = "passport~|travel document|pasaporte~|passaporto~|reisepass~|passport-nr|여권|護照|护照|پاسپورٹ"
_LICENCE = "licen~|driving|patente~|führerschein~|fahrerlaubnis~|fuehrerschein~|면허|운전"
_PLATE = "plate~|vehicle~|registration~|number plate|car reg|rc|plaka~|kennzeichen~|vrn|dvla|motor vehicle~|bike~|targa"
_VAT_DE = "ust|ustid~|ust-id~|umsatzsteuer~|vat|vatin|mwst~"
_PASS_DE = "pass-nr|passnummer|reisepass~|ausweis~|personalausweis~|passport~|id card|identity card|pass"

IDENTIFIERS = (
    Identifier("CARD", "", "9{12,19}|9999^9999^9999^9999|9999^9999^9999^9999^999|9999^999999^99999|9999^999999^9999",
               "",
               check=is_card),
    # Issuers' ranges change; a word makes up for one that is not known here (such as UATP's 1).
    Identifier("CARD", "", "", "9{12,19}|9999^9999^9999^9999|9999^99999^999999", _CARD, own.luhn_card),
    # United States and Canada
    Identifier("US_SSN", "US", "999-99-9999|999 99 9999", "9{9}|999.99.9999|999-999999|99999-9999", _SSN,
               _of("us.ssn")),
    Identifier("US_ITIN", "US", "999-99-9999", "9{9}|999 99 9999|999-999999|99999-9999", _SSN,
               pattern=r"9\d\d(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])\d{4}"),
    Identifier("US_NPI", "US", "", "9{10}|9999^999^999|999^999^9999", "npi|national provider|provider id~", own.npi),
    Identifier("US_MBI", "US", "9AX9-AX9-AA99", "9AX9AX9AA99", "mbi|medicare~|beneficiary",
               pattern=r"[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y\d]\d[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y\d]\d"
                       r"[AC-HJKMNP-RT-Y]{2}\d\d"),
    Identifier("US_PASSPORT", "US", "", "A9{8}|9{9}", _PASSPORT),
    Identifier("US_DRIVER_LICENSE", "US", "",
               "A9{4,14}|AA9{3,7}|9{7,10}|9{12}|9999-99-9999|A999-9999-9999|A9{3}-9{3}-9{3}",
               "driver licen~|drivers licen~|driver s licen~|driving licen~|licence no|license no|licence number|"
               "license number|driver licence|dl no|dl number"),
    Identifier("US_BANK_NUMBER", "US", "", "9{8,17}",
               "account no|account number~|account num|acct~|bank account~|bank number|checking account|"
               "savings account", own.varied),
    Identifier("ABA_ROUTING_NUMBER", "US", "", "9{9}|9999-9999-9", "aba|routing~|rtn|transit~|bank number",
               own.aba_routing),
    Identifier("MEDICAL_LICENSE", "US", "", "AA9{7}|A9{8}", "dea|prescriber~|medical licen~|registration number",
               own.dea, r"[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}"),
    Identifier("CA_SIN", "CA", "", "9{9}|999^999^999", "sin|social insurance|nas|assurance sociale", own.sin),
    # United Kingdom and Ireland
    Identifier("UK_NHS", "GB", "", "9{10}|999^999^9999", "nhs|national health|patient~|health service", own.nhs),
    Identifier("UK_NINO", "GB", "AA~99~99~99~A|AA 999999A|AA^999999^A", "", "nino|national insurance|ni number",
               own.nino),
    Identifier("UK_PASSPORT", "GB", "", "AA9{7}|9{9}", _PASSPORT),
    Identifier("UK_DRIVING_LICENCE", "GB",
               "AAAAA999999XXXXX|AAAA9999999XXXXX|AAA99999999XXXXX|AA999999999XXXXX|A9999999999XXXXX", "", _LICENCE,
               pattern=r"[A-Z]{1,5}9{0,4}\d[0156]\d[0-3]\d\d[A-Z][A-Z9]\d?[A-Z\d]{2,3}"),
    Identifier("UK_VEHICLE_REGISTRATION", "GB", "", "AA99~AAA|A9{1,3}~AAA|AAA~9{1,3}A", _PLATE,
               pattern=r"[A-HJ-PR-Y]{2}(?:0[2-9]|[12]\d|5[1-9]|[67]\d)[A-HJ-PR-Z]{3}|[A-HJ-NPR-TV-Y]\d{1,3}[A-HJ-PR-Y][A-HJ-PR-Z]{2}"
                       r"|[A-HJ-PR-Z]{3}\d{1,3}[A-HJ-NPR-TV-Y]"),
    Identifier("IE_PPS", "IE", "9{7}A|9{7}AA", "", "pps~|ppsn", _of("ie.pps")),
    # Germany, Austria, Switzerland
    Identifier("DE_TAX_ID", "DE", "", "9{11}|99 999 999 999",
               "idnr|id-nr|steuer~|tin|identifikationsnummer|tax id~", own.tax_id_de),
    Identifier("DE_TAX_NUMBER", "DE", "",
               "9{13}|99/999/99999|999/999/99999|99/999/9999|99/9999/9999|999/9999/9999|9/999/99999",
               "steuernummer~|st.-nr|stnr|st-nr|steuer-nr|finanzamt|tax number",
               pattern=r"(?:0[1-9]|1[0-6])\d{11}|\d{9,11}"),
    Identifier("DE_SOCIAL_SECURITY", "DE", "9{8}A999|99 999999 A 999", "",
               "rvnr|sozialversicherung~|rentenversicherung~",
               own.pension_de),
    Identifier("DE_HEALTH_INSURANCE", "DE", "", "A9{9}",
               "kvnr|krankenversich~|versicherten~|krankenkasse~|gesundheitskarte",
               own.health_de),
    Identifier("DE_LANR", "DE", "", "9{9}", "lanr|arztnummer|arzt~", own.physician_de),
    Identifier("DE_PASSPORT", "DE", "", "AXXXXXXX9", _PASS_DE, own.document_de),
    Identifier("DE_FUEHRERSCHEIN", "DE", "", "AA9{8}X", _LICENCE),
    Identifier("DE_VAT_ID", "DE", "AA9{9}|AA 999 999 999", "", _VAT_DE, own.vat_de, r"DE\d{9}"),
    Identifier("DE_VAT_ID", "DE", "", "AA*999*999*999", _VAT_DE, pattern=r"DE[1-9]\d{8}"),
    Identifier("DE_HANDELSREGISTER", "DE", "AAA 9{3,6}", "AAA9{1,6}|AAA 9{1,2}",
               "handelsregister~|amtsgericht|hr|register~",
               pattern=r"HR[AB]\d{1,6}"),
    Identifier("DE_KFZ", "DE", "", "A{1,3}^A{1,2}^9{1,4}|A{1,3}^A{1,2}^9{1,4}A|A{1,3}-A{1,2} 9{1,4}", _PLATE,
               pattern=r"[A-Z]{2,5}[1-9]\d{0,3}[EH]?"),
    Identifier("AT_SVNR", "AT", "", "9999 9{6}|9{10}", "svnr|sv-nr|sozialversicherung~|vsnr", _of("at.vnr")),
    Identifier("CH_AHV", "CH", "999.9999.9999.99|9{13}", "", "ahv~|avs|svnr|oasi", _of("ch.ssn")),
    # France, Benelux
    Identifier("FR_NIR", "FR", "9{15}|9 99 99 99 999 999 99|9 99 99 XX 999 999 99|9 99 99 99 999 999|99999XX99999999",
               "",
               "nir|sécurité sociale|sécu|insee", _of("fr.nir"), r"[1278]\d{4}.{10}"),
    Identifier("BE_NN", "BE", "99.99.99-999.99|9{11}|99.99.99.999.99", "",
               "rijksregister~|registre national|nn|insz|niss",
               _of("be.nn")),
    Identifier("NL_BSN", "NL", "", "9{9}|999.999.999|9999.99.999|9999 99 999",
               "bsn|burgerservice~|sofi~|citizen service",
               _of("nl.bsn")),
    # Iberia, Italy, Greece
    Identifier("ES_NIF", "ES", "9{8}A|9{8}-A|99.999.999-A|99.999.999A", "9{7}A|9{7}-A", "nif|dni|documento nacional",
               own.nif),
    Identifier("ES_NIE", "ES", "A9{7}A|A9{7}-A|A-9{7}-A", "", "nie|extranjero~", own.nie),
    Identifier("ES_PASSPORT", "ES", "", "AAA9{6}", _PASSPORT),
    Identifier("PT_NIF", "PT", "", "9{9}|999 999 999", "nif|contribuinte~|nipc", _of("pt.nif")),
    Identifier("IT_FISCAL_CODE", "IT", "AAAAAAXXAXXAXXXA|AAA AAA 99A99 A999A", "", "fiscale|codice",
               _of("it.codicefiscale")),
    Identifier("IT_FISCAL_CODE", "IT", "", "A{6}99A99A999A", "fiscale|codice|fiscal code|c.f.",
               pattern=r"[A-Z]{6}\d\d[ABCDEHLMPRST](?:[0-3]|[4-7])\d[A-Z]\d{3}[A-Z]"),
    Identifier("IT_VAT_CODE", "IT", "", "9{11}|AA9{11}", "iva|partita|p.iva|piva|vat", _of("it.iva")),
    Identifier("IT_DRIVER_LICENSE", "IT", "", "AA9{7}A|A9A9{2}X9{3}A|A9A99A999A", _LICENCE,
               pattern=r"[A-Z]{2}\d{7}[A-Z]|U1[BCDFGHLJKMNPRSTUVWYXZ0-9]{7}[A-Z]"),
    Identifier("IT_PASSPORT", "IT", "", "AA9{7}", _PASSPORT),
    Identifier("IT_IDENTITY_CARD", "IT", "", "AA~9{7}|AA9{5}AA|9{7}AA", "identità|identita|identity card|carta"),
    Identifier("GR_AMKA", "GR", "", "9{11}", "amka|αμκα", _of("gr.amka")),
    # The north
    Identifier("FI_PERSONAL_IDENTITY_CODE", "FI", "9{6}-999X|9{6}A999X", "", "hetu|henkilötunnus~|personbeteckning",
               own.hetu, glued=True),
    Identifier("SE_PERSONNUMMER", "SE", "9{6}-9{4}|9{8}-9{4}", "9{10}|9{12}",
               "personnummer~|pnr|personnr|identity code",
               own.person_se),
    Identifier("SE_ORGANISATIONSNUMMER", "SE", "", "9{6}-9{4}|9{10}",
               "organisationsnummer~|org.nr|orgnr|org nr|company identity|company number|"
               "company id~|company reg~", own.organisation_se),
    Identifier("NO_FODSELSNUMMER", "NO", "9{6} 9{5}|9{11}", "", "fødselsnummer~|personnummer|fnr|fødselsnr",
               _of("no.fodselsnummer")),
    Identifier("DK_CPR", "DK", "", "9{6}-9{4}|9{10}", "cpr~|personnummer", own.date_last_digit_dk),
    Identifier("IS_KENNITALA", "IS", "", "9{6}-9{4}|9{10}", "kennitala~|kt", _of("is_.kennitala")),
    Identifier("EE_ISIKUKOOD", "EE", "9{11}", "", "isikukood~", _of("ee.ik")),
    Identifier("LT_ASMENS_KODAS", "LT", "", "9{11}", "asmens~|a.k.", _of("lt.asmens")),
    Identifier("LV_PERSONAS_KODS", "LV", "", "9{6}-9{5}", "personas~|p.k.", _of("lv.pvn")),
    # The east
    Identifier("PL_PESEL", "PL", "", "9{11}", "pesel~", _of("pl.pesel")),
    Identifier("PL_NIP", "PL", "999-999-99-99", "9{10}|999-99-99-999", "nip", _of("pl.nip")),
    Identifier("CZ_RODNE_CISLO", "CZ", "9{6}/9{4}", "9{10}", "rodné~|rč|r.č.", _of("cz.rc")),
    Identifier("RO_CNP", "RO", "9{13}", "", "cnp|cod numeric", _of("ro.cnp")),
    Identifier("BG_EGN", "BG", "", "9{10}", "егн|egn", _of("bg.egn")),
    Identifier("HR_OIB", "HR", "", "9{11}", "oib", _of("hr.oib")),
    Identifier("SI_EMSO", "SI", "", "9{13}", "emšo|jmbg|emso", _of("si.emso")),
    Identifier("UA_RNTRC", "UA", "", "9{10}", "рнокпп|ідентифікаційний~|іпн", _of("ua.rntrc")),
    Identifier("RU_INN", "RU", "", "9{12}|9{10}", "инн", _of("ru.inn")),
    Identifier("TR_NATIONAL_ID", "TR", "9{11}", "", "kimlik~|tckn|tc no|t.c.|tckimlik", _of("tr.tckimlik")),
    Identifier("TR_LICENSE_PLATE", "TR", "", "99~A{1,3}~9{2,4}", _PLATE,
               pattern=r"(?:0[1-9]|[1-7]\d|8[01])[A-PR-VYZ]{1,3}\d{2,4}"),
    Identifier("IL_ID", "IL", "", "9{9}", "ת.ז|תעודת זהות|teudat zehut", _of("il.idnr")),
    # Africa
    Identifier("ZA_ID_NUMBER", "ZA", "9{13}|9{6} 9{4} 999", "",
               "south africa~|id number|identity number|rsa|sa id|resident number|said",
               own.id_za),
    Identifier("NG_NIN", "NG", "", "9{11}", "nin|national identi~|nimc", _of("verhoeff")),
    Identifier("NG_VEHICLE_REGISTRATION", "NG", "", "AAA~999AA", _PLATE),
    Identifier("EG_NATIONAL_ID", "EG", "9{14}", "", "رقم قومي|الرقم القومي|national id", _of("eg.tn")),
    # South and east Asia
    Identifier("IN_AADHAAR", "IN", "", "9{12}|9999^9999^9999|9999:9999:9999", "aadhaar~|aadhar~|uidai|आधार",
               _of("in_.aadhaar")),
    Identifier("IN_PAN", "IN", "AAAAA9999A", "", "pan|permanent account", _of("in_.pan")),
    Identifier("IN_PAN", "IN", "", "AAAAA9999A", "pan|permanent account", pattern=r"[A-Z]{5}\d{4}[A-Z]"),
    Identifier("IN_GSTIN", "IN", "99AAAAA9999AXAX", "", "gst~",
               pattern=r"(?:0[1-9]|[12]\d|3[0-8])[A-Z]{5}\d{4}[A-Z][1-9A-Z]Z[A-Z\d]"),
    Identifier("IN_PASSPORT", "IN", "", "A9{7}", _PASSPORT, pattern=r"[A-Z][1-9]\d{5}[1-9]"),
    Identifier("IN_VOTER", "IN", "", "AAA9{7}", "voter~|vote|epic|elector~|election"),
    Identifier("IN_VEHICLE_REGISTRATION", "IN", "",
               "AA99~A{1,2}~9999|AA9A{1,3}9999|AA9999|AAA9999|A99999|A9999|99AA9999A{1,2}|99A9{6}A",
               _PLATE, pattern=r"(?!.*0000$)[A-Z\d]+"),
    Identifier("PK_CNIC", "PK", "9{5}-9{7}-9", "9{13}", "cnic|nadra|nic", _of("pk.cnic")),
    Identifier("KR_RRN", "KR", "9{6}-9{7}", "9{13}", "주민등록~|주민번호~|rrn|resident registration", own.resident_kr),
    Identifier("KR_FRN", "KR", "9{6}-9{7}", "9{13}", "외국인~|frn|foreigner~|alien registration", own.foreigner_kr),
    Identifier("KR_BRN", "KR", "999-99-99999", "9{10}", "사업자~|brn|business registration", own.business_kr),
    Identifier("KR_DRIVER_LICENSE", "KR", "", "99^99^9{6}^99|9{12}", _LICENCE, pattern=r"(?:1[1-9]|2[0-68])\d{10}"),
    Identifier("KR_PASSPORT", "KR", "", "A999A9999|A9{8}", _PASSPORT, pattern=r"[MSRODG](?:\d{3}[A-Z]\d{4}|\d{8})"),
    Identifier("CN_RESIDENT_ID", "CN", "9{18}|9{17}A", "", "身份证~|公民身份~", _of("cn.ric")),
    Identifier("JP_MY_NUMBER", "JP", "", "9{12}|9999^9999^9999", "マイナンバー~|個人番号~|my number", _of("jp.in_")),
    # South-east Asia
    Identifier("SG_NRIC_FIN", "SG", "A9{7}A", "", "nric|fin|identity card", own.nric),
    Identifier("SG_NRIC_FIN", "SG", "", "A9{7}A", "nric|fin|identity card", pattern=r"[STFGM]\d{7}[A-Z]"),
    Identifier("SG_UEN", "SG", "A99AA9{4}A", "9{8}A|9{9}A", "uen|acra|unique entity", _of("sg.uen")),
    Identifier("MY_NRIC", "MY", "9{6}-99-9{4}", "9{12}", "mykad|nric|kad pengenalan|ic no", _of("my.nric")),
    Identifier("ID_NIK", "ID", "", "9{16}", "nik|ktp|induk~", _of("id.nik")),
    Identifier("TH_TNIN", "TH", "9-9{4}-9{5}-99-9", "9{13}", "thai id~|thai national|tnin|บัตรประชาชน|เลขประจำตัว",
               _of("th.pin"),
               r"[1-8](?:[134]\d|2[0-7]|5[0-8]|[67][0-7]|[89][0-6])\d{10}"),
    Identifier("PH_TIN", "PH", "999-999-999-999", "9{9}|9{12}|999-999-999", "tin|taxpayer~|bir|tax id|rdo", own.tin_ph),
    # Australia and New Zealand
    Identifier("AU_ABN", "AU", "99 999 999 999", "9{11}", "abn|business number", _of("au.abn")),
    Identifier("AU_ACN", "AU", "", "9{9}|999^999^999", "acn|company number", _of("au.acn")),
    Identifier("AU_TFN", "AU", "", "9{9}|9{8}|999^999^999", _TAX_AU, _of("au.tfn")),
    Identifier("AU_MEDICARE", "AU", "", "9{10}|9999^99999^9", "medicare~", own.medicare_au),
    Identifier("NZ_IRD", "NZ", "", "9{8,9}|99-999-999|999-999-999", "ird|inland revenue", _of("nz.ird")),
    # Latin America
    Identifier("BR_CPF", "BR", "999.999.999-99", "9{11}|9{9}-99", "cpf~|cadastro de pessoas", _of("br.cpf")),
    Identifier("BR_CNPJ", "BR", "99.999.999/9999-99", "9{14}", "cnpj~", _of("br.cnpj")),
    Identifier("AR_CUIT", "AR", "99-9{8}-9", "9{11}", "cuit|cuil", _of("ar.cuit")),
    Identifier("CL_RUT", "CL", "99.999.999-X|9.999.999-X", "9{7,8}-X|9{7,8}X", "rut|run", _of("cl.rut")),
    Identifier("CO_NIT", "CO", "", "999.999.999-9|9{9}-9", "nit", _of("co.nit")),
    Identifier("EC_CEDULA", "EC", "", "9{10}", "cédula~|cedula~", _of("ec.ci")),
    Identifier("MX_CURP", "MX", "AAAA9{6}A{6}X9", "", "curp", _of("mx.curp")),
    Identifier("MX_RFC", "MX", "", "AAAA9{6}XXX", "rfc",
               pattern=r"[A-Z]{4}\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[A-Z\d]{3}"),
)
NUMBERED = tuple(dict.fromkeys(row.type for row in IDENTIFIERS))


@lru_cache(maxsize=1)
def shapes() -> tuple[Trie, tuple[tuple[tuple[int, bool], ...], ...]]:
    """The trie of all shapes, and for each shape the rows of IDENTIFIERS that have it, with whether it stands alone."""
    rows: dict[str, list[tuple[int, bool]]] = {}
    for index, row in enumerate(IDENTIFIERS):
        for stands_alone, written in ((True, row.alone), (False, row.named)):
            for shape in filter(None, written.split("|")):
                for plain in expand(shape):
                    if "9" not in plain[:REACH + 1]:
                        continue    # an X that is a letter everywhere
                    known = rows.setdefault(plain, [])
                    if index not in {other for other, _ in known}:
                        known.append((index, stands_alone))
    return trie(rows), tuple(tuple(known) for known in rows.values())
