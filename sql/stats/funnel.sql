-- How many records went into each stage, and how many did each stage and rule take?
-- A row without a rule is the whole stage.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), lines AS (
    SELECT f.name, f.version, f.position, f.stage, NULL AS rule, f.rows_in, f.kept, f.dropped, f.rows_in AS came
    FROM funnel AS f JOIN chosen USING (name, version)
    UNION ALL
    SELECT f.name, f.version, f.position, f.stage, r.rule, NULL, NULL, r.dropped, f.rows_in
    FROM funnel AS f JOIN chosen USING (name, version) JOIN funnel_rules AS r USING (name, version, stage)
)
SELECT name, version, stage, rule, rows_in, kept, dropped,
       round(100.0 * dropped / nullif(came, 0), 2) AS percent_dropped
FROM lines
ORDER BY name, version, position, rule IS NOT NULL, dropped DESC, rule;
