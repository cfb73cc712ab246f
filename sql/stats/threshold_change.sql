-- How many documents would come back from the filter if a rule's threshold were another?
-- Documents that other rules would drop too stay out, and stages behind the filter may still take some.
-- For a stricter threshold ask stats/signal_cut.sql.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    NULL::VARCHAR AS rule,                  -- a rule; NULL: all
    NULL::DOUBLE AS threshold               -- the new one; NULL: looser by 5 to 100 percent
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), alone AS (       -- dropped by the filter for one rule and nothing else
    SELECT f.name, f.version, f.rule, f.value, f.threshold, f.value < f.threshold AS is_minimum
    FROM fates AS f JOIN chosen USING (name, version), params AS p
    WHERE f.outcome = 'dropped' AND f.stage = 'filter' AND f.value IS NOT NULL AND f.threshold IS NOT NULL
      AND (f.failed IS NULL OR len(f.failed) <= 1) AND (p.rule IS NULL OR f.rule = p.rule)
), tries AS (
    SELECT unnest([0.05, 0.1, 0.25, 0.5, 1.0]) AS looser
), changes AS (
    SELECT a.*, coalesce(p.threshold, CASE WHEN a.is_minimum THEN a.threshold - t.looser * abs(a.threshold)
                                           ELSE a.threshold + t.looser * abs(a.threshold) END) AS new_threshold
    FROM alone AS a, params AS p, tries AS t
    WHERE p.threshold IS NULL OR t.looser = 1.0
), seen AS (
    SELECT name, version, kept FROM funnel WHERE stage = 'filter'
)
SELECT c.name, c.version, c.rule, CASE WHEN c.is_minimum THEN 'at least' ELSE 'at most' END AS bound, c.threshold,
       round(c.new_threshold, 6) AS new_threshold, s.kept AS kept_now, count(*) AS dropped_by_it_alone,
       count(*) FILTER (CASE WHEN c.is_minimum THEN c.value >= c.new_threshold ELSE c.value <= c.new_threshold END)
           AS would_come_back
FROM changes AS c LEFT JOIN seen AS s USING (name, version)
GROUP BY c.name, c.version, c.rule, c.is_minimum, c.threshold, c.new_threshold, s.kept
ORDER BY c.name, c.version, c.rule, bound, c.threshold, abs(c.new_threshold - c.threshold);
