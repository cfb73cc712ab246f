-- Which recipe made better models, and is the difference more than chance?
WITH params AS (SELECT
    NULL::VARCHAR AS ablation,              -- an ablation; NULL: all
    'all' AS domain                         -- of the measure; NULL: all of them
)
SELECT a.name, a.task, a.metric, a.domain, a.variant, a.recipe, a.corpus, a.version, round(a.epochs, 2) AS epochs,
       a.seeds, round(a.mean, 4) AS mean, round(a.low, 4) AS low, round(a.high, 4) AS high,
       round(a.difference, 4) AS difference, round(a.difference_low, 4) AS difference_low,
       round(a.difference_high, 4) AS difference_high, round(a.p, 4) AS p,
       CASE WHEN a.difference IS NULL THEN 'baseline'
            WHEN a.difference_low IS NULL THEN 'one seed'
            WHEN a.difference_low <= 0 AND a.difference_high >= 0 THEN 'not told apart'
            WHEN (a.difference < 0) = (a.metric IN ('bits_per_byte', 'perplexity')) THEN 'better'
            ELSE 'worse' END AS verdict
FROM params AS p, ablations AS a
WHERE (p.ablation IS NULL OR a.name = p.ablation) AND (p.domain IS NULL OR a.domain = p.domain)
ORDER BY a.name, a.task, a.metric, a.domain, a.difference IS NOT NULL, a.variant;
