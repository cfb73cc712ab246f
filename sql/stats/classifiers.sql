-- How well does each classifier of quality rank held-out texts, and which score keeps which share of random crawl?
WITH params AS (SELECT
    NULL::VARCHAR AS classifier,            -- a classifier; NULL: all
    NULL::DOUBLE AS keep                    -- a share, such as 0.1; NULL: all
), latest AS (
    SELECT * FROM classifiers QUALIFY row_number() OVER (PARTITION BY name ORDER BY recorded_at DESC) = 1
)
SELECT c.name, c.recorded_at, round(c.auc, 4) AS auc, round(c.auc_low, 4) AS auc_low, round(c.auc_high, 4) AS auc_high,
       round(c.ece, 4) AS calibration_error, c.held_out_positives, c.held_out_negatives, t.keep,
       round(t.threshold, 6) AS threshold
FROM params AS p, latest AS c JOIN classifier_thresholds AS t ON t.name = c.name AND t.sha256 = c.sha256
WHERE (p.classifier IS NULL OR c.name = p.classifier) AND (p.keep IS NULL OR abs(t.keep - p.keep) < 1e-9)
GROUP BY ALL
ORDER BY c.name, t.keep;
