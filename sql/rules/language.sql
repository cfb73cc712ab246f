-- The languages to keep. On whatever presets are chosen; `filter.language.enabled=false` turns a rule off.

-- rule: language
-- about: the language is one of `keep` (ISO 639-1 codes; an empty list keeps every language)
-- source: Penedo et al. 2024, FineWeb, https://arxiv.org/abs/2406.17557, section 3.1: English only
-- value: language_score
-- detail: language
-- params: keep=['en']
-- keep when:
len($keep::VARCHAR[]) = 0 OR list_contains($keep::VARCHAR[], language)

-- rule: language_score
-- about: the language model is sure enough
-- source: Penedo et al. 2024, section 3.1: fastText lid.176 score of at least 0.65
-- value: language_score
-- detail: language
-- params: min=0.65
-- keep when:
language_score >= $min
