-- FineWeb's own rules: Penedo et al. 2024, The FineWeb Datasets, https://arxiv.org/abs/2406.17557, section 3.6, and
-- datatrove's fineweb_quality_filter.py.
--
-- FineWeb applies them after Gopher's and after C4's without the rule on line ends (c4_sentences.terminal=false).
-- Lines are trimmed and blank ones do not count. A line ends in terminal punctuation also when closing quotes or
-- brackets follow it. Characters of duplicate lines are a fraction of the characters in all lines.

-- rule: fineweb_line_punctuation
-- about: lines that end in terminal punctuation
-- source: Penedo et al. 2024, section 3.6: at most 0.12 of lines ending with punctuation is a reason to drop
-- value: terminal_line_fraction
-- params: min=0.12
-- keep when:
terminal_line_fraction >= $min

-- rule: fineweb_short_lines
-- about: lines of at most 30 characters
-- source: Penedo et al. 2024, section 3.6: 0.67 of lines shorter than 30 characters
-- value: short_line_fraction
-- params: max=0.67
-- keep when:
short_line_fraction <= $max

-- rule: fineweb_duplicate_line_chars
-- about: characters in lines that repeat an earlier one
-- source: Penedo et al. 2024, section 3.6, prints 0.1, as FineWeb-2 uses; the code that made FineWeb has 0.01, set here
-- value: duplicate_line_char_fraction
-- params: max=0.01
-- keep when:
duplicate_line_char_fraction <= $max

-- rule: fineweb_newlines
-- about: line feeds a word or run of punctuation (datatrove counts both): lists
-- source: datatrove, fineweb_quality_filter.py: new_line_ratio 0.3
-- value: CASE WHEN n_pieces = 0 THEN 0 ELSE newline_word_ratio * n_words / n_pieces END
-- params: max=0.3
-- keep when:
CASE WHEN n_pieces = 0 THEN 0 ELSE newline_word_ratio * n_words / n_pieces END <= $max
