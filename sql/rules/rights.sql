-- Consent: pages whose publisher says not to train on them. On whatever presets are chosen.

-- rule: consent
-- about: opt-outs found in the page or its headers; a page where nobody looked for them (NULL) counts as one without
-- source: noai (noimageai speaks of images alone): https://www.deviantart.com/team/journal/A-New-Directive-for-Opting-Out-of-AI-Datasets-934500371;
--   tdm-reservation: W3C TDM Reservation Protocol, https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/,
--   under article 4 of Directive (EU) 2019/790
-- value: len(list_intersect(coalesce(rights, []), $opt_outs::VARCHAR[]))
-- detail: list_sort(list_intersect(coalesce(rights, []), $opt_outs::VARCHAR[]))[1]
-- params: max=0, opt_outs=['noai', 'notrain', 'tdm-reservation']
-- keep when:
len(list_intersect(coalesce(rights, []), $opt_outs::VARCHAR[])) <= $max
