-- The languages to keep. On whatever presets are chosen; `filter.language.enabled=false` turns a rule off.
--
-- A threshold may be given by language: `filter.language_score.min={default: 0.65, ja: 0.9, id: 0.5}`, as GlotLID's
-- scores need it. The embedded model's score is a probability that holds over languages; a pair that it cannot tell
-- apart (Bosnian and Croatian, Malay and Indonesian) has low ones.

-- rule: language
-- about: the language is one of `keep` (ISO 639-1 codes; an empty list keeps every language)
-- source: Penedo et al. 2024, FineWeb, https://arxiv.org/abs/2406.17557: English only
-- value: language_score
-- detail: language
-- params: keep=['en']
-- keep when:
len($keep::VARCHAR[]) = 0 OR list_contains($keep::VARCHAR[], language)

-- rule: language_score
-- about: the language model is sure enough
-- source: Penedo et al. 2024: fastText lid.176 score of at least 0.65
-- value: language_score
-- detail: language
-- params: min=0.65
-- keep when:
language_score >= $min

-- rule: language_mixture
-- about: how much of the text is surely in another language than the whole
-- source: no published threshold: 1 keeps everything
-- value: other_language_fraction
-- detail: second_language
-- params: max=1
-- keep when:
other_language_fraction <= $max
