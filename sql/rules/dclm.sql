-- DCLM-Baseline: Li et al. 2024, DataComp-LM, https://arxiv.org/abs/2406.11794, and
-- https://github.com/mlfoundations/dclm, baselines/baselines_configs/dclm_baseline_refinedweb.yaml and fasttext_filter.yaml:
-- its RefinedWeb filters, and then a fastText classifier of quality (annotate.quality) that keeps the best tenth.
--
-- DCLM counts the first occurrence of an n-gram that is repeated, as RedPajama-V2 does, so those rules are used; it also
-- counts the first of duplicate lines and paragraphs, which no signal here does: on those it is stricter. Its stop words
-- count each time they occur; here two distinct ones have to (of 1,349 English pages 5 differ by that).

-- use: gopher_words, gopher_word_length, rpv2_symbols, gopher_bullet_lines, gopher_ellipsis_lines, gopher_letters, gopher_stop_words
-- use: gopher_duplicate_lines, gopher_duplicate_line_chars, gopher_duplicate_paragraphs, gopher_duplicate_paragraph_chars
-- use: gopher_top_2grams, gopher_top_3grams, gopher_top_4grams
-- use: rpv2_repeated_5grams, rpv2_repeated_6grams, rpv2_repeated_7grams
-- use: rpv2_repeated_8grams, rpv2_repeated_9grams, rpv2_repeated_10grams
-- use: refinedweb_removed_words

-- rule: dclm_quality
-- about: like the classifier's positives (annotate.quality); without a classifier no page passes
-- source: Li et al. 2024, section 4.4, and fasttext_filter.yaml: the threshold 0.018112 is that of DCLM's own model
--   (https://huggingface.co/mlfoundations/fasttext-oh-eli5, annotate.quality.text=raw) and keeps its best tenth. For
--   another, min={keep: 0.1, classifier: FOLDER} takes the threshold from what train-classifier wrote.
-- value: quality_score
-- params: min=0.018112
-- keep when:
quality_score >= $min
