-- C4's rules: Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
-- https://arxiv.org/abs/1910.10683, section 2.2.
--
-- C4 removes lines, and then drops what has too few sentences left. Here nothing is cut out of a document: the
-- sentences are those in the lines that C4 would leave (at least 3 tokens a line, none above 1,000 characters, no
-- `javascript`, no policy phrase, terminal punctuation that is not an ellipsis), and a document much of which
-- lies in lines that C4 removes for javascript or policies is dropped whole, at RefinedWeb's limit for such corrections.
-- A sentence ends at terminal punctuation before white space or with its line (C4: NLTK's punkt). The words javascript
-- and lorem ipsum count as words, not as parts of words. Where the stage `lines` has cut such lines before (its preset
-- c4), they are gone from all of this.

-- rule: c4_sentences
-- about: sentences that C4's line rules leave; terminal=false leaves out the rule on line ends, as FineWeb does
-- source: Raffel et al. 2020, section 2.2: pages with fewer than 5 sentences are discarded (3 in its code,
--   tensorflow/datasets, text/c4_utils.py, and in DCLM)
-- value: CASE WHEN $terminal THEN c4_sentences ELSE c4_sentences_any_end END
-- params: min=5, terminal=True
-- keep when:
(CASE WHEN $terminal THEN c4_sentences ELSE c4_sentences_any_end END) >= $min

-- rule: c4_words_per_line
-- about: mean words a line (C4 removes each line below the limit)
-- source: Raffel et al. 2020, section 2.2: lines with at least 3 words (5 in its code and in DCLM)
-- value: mean_words_per_line
-- params: min=3
-- keep when:
mean_words_per_line >= $min

-- rule: c4_word_length
-- about: the longest run of anything but white space (C4 removes its line)
-- source: tensorflow/datasets, text/c4_utils.py: max_word_length 1000
-- value: max_token_length
-- params: max=1000
-- keep when:
max_token_length <= $max

-- rule: c4_lorem_ipsum
-- about: placeholder text
-- source: Raffel et al. 2020, section 2.2: any page where "lorem ipsum" appeared
-- value: lorem_ipsum::INTEGER
-- params: max=0
-- keep when:
lorem_ipsum::INTEGER <= $max

-- rule: c4_curly_brackets
-- about: `{`, which is code more often than prose
-- source: Raffel et al. 2020, section 2.2: any page that contained a curly bracket
-- value: n_curly_brackets
-- params: max=0
-- keep when:
n_curly_brackets <= $max

-- rule: c4_javascript
-- about: words in lines that say javascript
-- source: Raffel et al. 2020, section 2.2 removes the lines; Penedo et al. 2023, RefinedWeb, https://arxiv.org/abs/2306.01116,
--   appendix on line-wise corrections: documents are dropped when such corrections take more than 5 % of their words
-- value: javascript_word_fraction
-- params: max=0.05
-- keep when:
javascript_word_fraction <= $max

-- rule: c4_policy
-- about: words in lines with "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"
-- source: Raffel et al. 2020, section 2.2 removes the lines; Penedo et al. 2023, https://arxiv.org/abs/2306.01116, as above
-- value: policy_word_fraction
-- params: max=0.05
-- keep when:
policy_word_fraction <= $max

-- rule: c4_bad_words
-- about: words and phrases of a list of bad ones (annotate.bad_words); where there is no list, every page passes
-- source: Raffel et al. 2020, section 2.2: any page with a word of the "List of Dirty, Naughty, Obscene or Otherwise Bad
--   Words", https://github.com/LDNOOBW/List-of-Dirty-Naughty-Obscene-and-Otherwise-Bad-Words
-- value: coalesce(n_bad_words, 0)
-- params: max=0
-- keep when:
coalesce(n_bad_words, 0) <= $max
