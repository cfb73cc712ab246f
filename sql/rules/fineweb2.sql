-- FineWeb-2's filters: Penedo et al. 2025, FineWeb2, https://arxiv.org/abs/2506.20920, and
-- https://github.com/huggingface/fineweb-2, fineweb-2-pipeline.py. They are FineWeb's with thresholds by language, which
-- fineweb2.parameters.json holds (from the repository's configs/); English and what has none there have FineWeb's.
--
-- Beside FineWeb: no rules of C4, none on paragraphs or on short lines, characters of duplicate lines at most 0.1.
-- The language scores are GlotLID's: with another model (annotate.language.model) set language_score.min.
-- FineWeb-2 counts punctuation as words (n_pieces here) where it counts words with a letter, and so does the rule below;
-- its own segmenters for scripts without spaces are other ones than ours.

-- use: language keep=[]
-- use: language_score min='fineweb2:language_score'
-- use: gopher_words
-- use: gopher_word_length min='fineweb2:min_avg_word_length', max='fineweb2:max_avg_word_length'
-- use: gopher_hashes, gopher_ellipses, gopher_bullet_lines, gopher_ellipsis_lines
-- use: gopher_duplicate_lines max='fineweb2:dup_line_frac'
-- use: gopher_top_2grams max='fineweb2:top_2_gram'
-- use: gopher_top_3grams max='fineweb2:top_3_gram'
-- use: gopher_top_4grams max='fineweb2:top_4_gram'
-- use: gopher_duplicate_5grams max='fineweb2:dup_5_gram'
-- use: gopher_duplicate_6grams max='fineweb2:dup_6_gram'
-- use: gopher_duplicate_7grams max='fineweb2:dup_7_gram'
-- use: gopher_duplicate_8grams max='fineweb2:dup_8_gram'
-- use: gopher_duplicate_9grams max='fineweb2:dup_9_gram'
-- use: gopher_duplicate_10grams max='fineweb2:dup_10_gram'
-- use: fineweb_line_punctuation min='fineweb2:line_punct_thr'
-- use: fineweb_duplicate_line_chars max=0.1
-- use: fineweb_newlines max='fineweb2:new_line_ratio'

-- rule: fineweb2_letters
-- about: words that hold a letter, among words and runs of punctuation
-- source: fineweb-2-pipeline.py and configs: max_non_alpha_words_ratio, which is a minimum
-- value: letter_piece_fraction
-- params: min='fineweb2:max_non_alpha_words_ratio'
-- keep when:
letter_piece_fraction >= $min

-- rule: fineweb2_stop_words
-- about: how many of the commonest words of its language occur; languages without a list pass
-- source: fineweb-2-pipeline.py: min_stop_words 2 of the language's stop words (configs: 8 to 30 of them; here 12)
-- value: coalesce(n_language_stop_words, $min)
-- params: min=2
-- keep when:
coalesce(n_language_stop_words, $min) >= $min
