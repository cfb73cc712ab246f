"""Codes of languages: what the labels of models mean.

Labels become ISO 639-1 codes where there is one: `__label__en`, `__label__eng` and `__label__eng_Latn` are all
"en"; the script is dropped; members of a macrolanguage with a two-letter code take that (`cmn_Hani` and `arb_Arab`
are "zh" and "ar", `nob` is "no"); every other code stays as the model gives it ("yue", "fil" as "tl").
"""

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


def code(label: str) -> str:
    """The language code of a model's label: `__label__eng_Latn` is "en"."""
    name, _, script = label.removeprefix("__label__").replace("-", "_").lower().partition("_")
    return ISO_639_1.get(name, name) if script or name not in WIKIPEDIA else WIKIPEDIA[name]
