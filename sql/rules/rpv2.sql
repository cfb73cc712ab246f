-- RedPajama-V2's signals under the rules that its dataset card shows, which are Gopher's: Weber et al. 2024,
-- https://arxiv.org/abs/2411.12372; https://huggingface.co/datasets/togethercomputer/RedPajama-Data-V2, Applying Filtering
-- Rules. The card shows the first five (words, their length, symbols, bullets, 2-grams) and leaves the rest open: they
-- are those of Rae et al. 2021 that a signal there (rps_*) measures. For its C4 signals choose the preset c4 as well.
--
-- A word is lower-case and without punctuation, as here. An n-gram that is repeated counts with its first occurrence.

-- use: language keep=['en', 'de', 'fr', 'es', 'it']
-- use: language_score min=0.5
-- use: gopher_words, gopher_word_length, gopher_bullet_lines, gopher_ellipsis_lines
-- use: gopher_top_2grams, gopher_top_3grams, gopher_top_4grams

-- rule: rpv2_symbols
-- about: `#` signs and ellipses, together, a word or run of punctuation
-- source: dataset card: rps_doc_symbol_to_word_ratio above 0.1 drops; natural_language.py divides by raw words
-- value: CASE WHEN n_pieces = 0 THEN 0 ELSE (hash_word_ratio + ellipsis_word_ratio) * n_words / n_pieces END
-- params: max=0.1
-- keep when:
CASE WHEN n_pieces = 0 THEN 0 ELSE (hash_word_ratio + ellipsis_word_ratio) * n_words / n_pieces END <= $max

-- rule: rpv2_letters
-- about: words that hold a letter, among words and runs of punctuation (1 - rps_doc_frac_no_alph_words)
-- source: Rae et al. 2021, appendix A, Quality Filtering: 80 % of words contain at least one alphabetic character
-- value: letter_piece_fraction
-- params: min=0.8
-- keep when:
letter_piece_fraction >= $min

-- rule: rpv2_repeated_5grams
-- about: characters in 5-grams that occur more than once (rps_doc_frac_chars_dupe_5grams)
-- source: Rae et al. 2021, table A1: duplicate 5-gram character fraction 0.15
-- value: repeated_5gram_char_fraction
-- params: max=0.15
-- keep when:
repeated_5gram_char_fraction <= $max

-- rule: rpv2_repeated_6grams
-- about: characters in 6-grams that occur more than once (rps_doc_frac_chars_dupe_6grams)
-- source: Rae et al. 2021, table A1: duplicate 6-gram character fraction 0.14
-- value: repeated_6gram_char_fraction
-- params: max=0.14
-- keep when:
repeated_6gram_char_fraction <= $max

-- rule: rpv2_repeated_7grams
-- about: characters in 7-grams that occur more than once (rps_doc_frac_chars_dupe_7grams)
-- source: Rae et al. 2021, table A1: duplicate 7-gram character fraction 0.13
-- value: repeated_7gram_char_fraction
-- params: max=0.13
-- keep when:
repeated_7gram_char_fraction <= $max

-- rule: rpv2_repeated_8grams
-- about: characters in 8-grams that occur more than once (rps_doc_frac_chars_dupe_8grams)
-- source: Rae et al. 2021, table A1: duplicate 8-gram character fraction 0.12
-- value: repeated_8gram_char_fraction
-- params: max=0.12
-- keep when:
repeated_8gram_char_fraction <= $max

-- rule: rpv2_repeated_9grams
-- about: characters in 9-grams that occur more than once (rps_doc_frac_chars_dupe_9grams)
-- source: Rae et al. 2021, table A1: duplicate 9-gram character fraction 0.11
-- value: repeated_9gram_char_fraction
-- params: max=0.11
-- keep when:
repeated_9gram_char_fraction <= $max

-- rule: rpv2_repeated_10grams
-- about: characters in 10-grams that occur more than once (rps_doc_frac_chars_dupe_10grams)
-- source: Rae et al. 2021, table A1: duplicate 10-gram character fraction 0.10
-- value: repeated_10gram_char_fraction
-- params: max=0.1
-- keep when:
repeated_10gram_char_fraction <= $max
