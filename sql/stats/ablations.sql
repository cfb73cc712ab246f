-- Which recipe made better models, and is the difference more than chance?
WITH params AS (SELECT
    NULL::VARCHAR AS ablation,              -- an ablation; NULL: all
    'all' AS domain                         -- of the measure; NULL: all of them
)
SELECT a.name, a.task, a.metric, a.domain, a.variant, a.recipe, a.corpus, a.version, round(a.epochs, 2) AS epochs,
       a.seeds, round(a.mean, 4) AS mean, round(a.low, 4) AS low, round(a.high, 4) AS high,
       round(a.difference, 4) AS difference, round(a.difference_low, 4) AS difference_low,
       round(a.difference_high, 4) AS difference_high, round(a.p, 4) AS p, a.verdict
FROM params AS p, ablations AS a
WHERE (p.ablation IS NULL OR a.name = p.ablation) AND (p.domain IS NULL OR a.domain = p.domain)
ORDER BY a.name, a.task, a.metric, a.domain, a.difference IS NOT NULL, a.variant;
