-- Gopher's quality and repetition rules: Rae et al. 2021, Scaling Language Models: Methods, Analysis & Insights from
-- Training Gopher, https://arxiv.org/abs/2112.11446, appendix A (Quality Filtering; Repetition Removal,
-- table A1).
--
-- The thresholds are the paper's; the paper leaves the definitions open, and implementations differ (datatrove, Dolma
-- and DCLM agree on four pages of five). Here a word is a run of letters, digits and marks, punctuation is never one
-- (datatrove counts it), words compare without case, and stop words are counted distinct (DCLM counts repeated ones).
-- Duplicates are occurrences after the first. Fractions of characters are of the characters in lines (lines and
-- paragraphs) or in words (n-grams), no character counted twice; an n-gram that occurs once is not a top n-gram.
-- The word-length and stop-word rules fit English and languages near it, and drop every page written without
-- spaces between words: choose other presets for those.

-- rule: gopher_words
-- about: too short to judge, or too long for a page
-- source: Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A, Quality Filtering: between 50 and 100,000 words
-- value: n_words
-- params: min=50, max=100000
-- keep when:
n_words BETWEEN $min AND $max

-- rule: gopher_word_length
-- about: mean characters a word
-- source: Rae et al. 2021, appendix A, Quality Filtering: mean word length of 3 to 10 characters
-- value: mean_word_length
-- params: min=3, max=10
-- keep when:
mean_word_length BETWEEN $min AND $max

-- rule: gopher_hashes
-- about: `#` signs a word
-- source: Rae et al. 2021, appendix A, Quality Filtering: symbol-to-word ratio above 0.1 for the hash symbol
-- value: hash_word_ratio
-- params: max=0.1
-- keep when:
hash_word_ratio <= $max

-- rule: gopher_ellipses
-- about: ellipses a word
-- source: Rae et al. 2021, appendix A, Quality Filtering: symbol-to-word ratio above 0.1 for the ellipsis
-- value: ellipsis_word_ratio
-- params: max=0.1
-- keep when:
ellipsis_word_ratio <= $max

-- rule: gopher_bullet_lines
-- about: lines that begin with a bullet
-- source: Rae et al. 2021, appendix A, Quality Filtering: more than 90 % of lines starting with a bullet point
-- value: bullet_line_fraction
-- params: max=0.9
-- keep when:
bullet_line_fraction <= $max

-- rule: gopher_ellipsis_lines
-- about: lines that end in an ellipsis
-- source: Rae et al. 2021, appendix A, Quality Filtering: more than 30 % ending with an ellipsis
-- value: ellipsis_line_fraction
-- params: max=0.3
-- keep when:
ellipsis_line_fraction <= $max

-- rule: gopher_letters
-- about: words (here: runs of anything but white space) that hold a letter
-- source: Rae et al. 2021, appendix A, Quality Filtering: 80 % of words contain at least one alphabetic character
-- value: letter_token_fraction
-- params: min=0.8
-- keep when:
letter_token_fraction >= $min

-- rule: gopher_stop_words
-- about: how many of the be to of and that have with occur
-- source: Rae et al. 2021, appendix A, Quality Filtering: at least two of the stop words
-- value: n_stop_words
-- params: min=2
-- keep when:
n_stop_words >= $min

-- rule: gopher_duplicate_lines
-- about: lines that repeat an earlier one
-- source: Rae et al. 2021, table A1: duplicate line fraction 0.30
-- value: duplicate_line_fraction
-- params: max=0.3
-- keep when:
duplicate_line_fraction <= $max

-- rule: gopher_duplicate_line_chars
-- about: characters in lines that repeat an earlier one
-- source: Rae et al. 2021, table A1: duplicate line character fraction 0.20
-- value: duplicate_line_char_fraction
-- params: max=0.2
-- keep when:
duplicate_line_char_fraction <= $max

-- rule: gopher_duplicate_paragraphs
-- about: paragraphs that repeat an earlier one
-- source: Rae et al. 2021, table A1: duplicate paragraph fraction 0.30
-- value: duplicate_paragraph_fraction
-- params: max=0.3
-- keep when:
duplicate_paragraph_fraction <= $max

-- rule: gopher_duplicate_paragraph_chars
-- about: characters in paragraphs that repeat an earlier one
-- source: Rae et al. 2021, table A1: duplicate paragraph character fraction 0.20
-- value: duplicate_paragraph_char_fraction
-- params: max=0.2
-- keep when:
duplicate_paragraph_char_fraction <= $max

-- rule: gopher_top_2grams
-- about: characters in the 2-gram that occurs most often
-- source: Rae et al. 2021, table A1: top 2-gram character fraction 0.20
-- value: top_2gram_char_fraction
-- params: max=0.2
-- keep when:
top_2gram_char_fraction <= $max

-- rule: gopher_top_3grams
-- about: characters in the 3-gram that occurs most often
-- source: Rae et al. 2021, table A1: top 3-gram character fraction 0.18
-- value: top_3gram_char_fraction
-- params: max=0.18
-- keep when:
top_3gram_char_fraction <= $max

-- rule: gopher_top_4grams
-- about: characters in the 4-gram that occurs most often
-- source: Rae et al. 2021, table A1: top 4-gram character fraction 0.16
-- value: top_4gram_char_fraction
-- params: max=0.16
-- keep when:
top_4gram_char_fraction <= $max

-- rule: gopher_duplicate_5grams
-- about: characters in 5-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 5-gram character fraction 0.15
-- value: duplicate_5gram_char_fraction
-- params: max=0.15
-- keep when:
duplicate_5gram_char_fraction <= $max

-- rule: gopher_duplicate_6grams
-- about: characters in 6-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 6-gram character fraction 0.14
-- value: duplicate_6gram_char_fraction
-- params: max=0.14
-- keep when:
duplicate_6gram_char_fraction <= $max

-- rule: gopher_duplicate_7grams
-- about: characters in 7-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 7-gram character fraction 0.13
-- value: duplicate_7gram_char_fraction
-- params: max=0.13
-- keep when:
duplicate_7gram_char_fraction <= $max

-- rule: gopher_duplicate_8grams
-- about: characters in 8-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 8-gram character fraction 0.12
-- value: duplicate_8gram_char_fraction
-- params: max=0.12
-- keep when:
duplicate_8gram_char_fraction <= $max

-- rule: gopher_duplicate_9grams
-- about: characters in 9-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 9-gram character fraction 0.11
-- value: duplicate_9gram_char_fraction
-- params: max=0.11
-- keep when:
duplicate_9gram_char_fraction <= $max

-- rule: gopher_duplicate_10grams
-- about: characters in 10-grams that occurred before
-- source: Rae et al. 2021, table A1: duplicate 10-gram character fraction 0.10
-- value: duplicate_10gram_char_fraction
-- params: max=0.1
-- keep when:
duplicate_10gram_char_fraction <= $max
