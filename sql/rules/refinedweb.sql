-- RefinedWeb's filters: Penedo et al. 2023, https://arxiv.org/abs/2306.01116. Gopher's rules, then line-wise corrections
-- (the stage `lines` with its preset refinedweb) and their limit, here. Its filters of URLs are not among them.

-- use: gopher

-- rule: refinedweb_removed_words
-- about: words in the lines that the stage `lines` cut
-- source: Penedo et al. 2023, appendix on line-wise corrections: a document is dropped when they remove more than 5 % of
--   its words; DCLM, dclm_baseline_refinedweb.yaml: max_removed_ratio 0.05
-- value: removed_word_fraction
-- params: max=0.05
-- keep when:
removed_word_fraction <= $max
