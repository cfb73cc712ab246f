-- Which domains have the most records, and how many of them are kept and dropped, by which rule most?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    50::BIGINT AS top                       -- how many domains of each corpus
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), records AS (
    SELECT name, version, domain, outcome, stage || '/' || rule AS rule
    FROM fates JOIN chosen USING (name, version)
), rules AS (
    SELECT name, version, domain, rule, count(*) AS n,
           row_number() OVER (PARTITION BY name, version, domain ORDER BY count(*) DESC, rule) AS place
    FROM records WHERE outcome = 'dropped' GROUP BY name, version, domain, rule
), domains AS (
    SELECT name, version, domain, count(*) FILTER (outcome = 'kept') AS kept,
           count(*) FILTER (outcome = 'dropped') AS dropped,
           row_number() OVER (PARTITION BY name, version ORDER BY count(*) DESC, domain) AS place
    FROM records GROUP BY name, version, domain
)
SELECT d.name, d.version, d.domain, d.kept, d.dropped, round(100.0 * d.kept / (d.kept + d.dropped), 2) AS percent_kept,
       r.rule AS main_rule, r.n AS dropped_by_it
FROM params AS p, domains AS d
LEFT JOIN rules AS r
    ON r.name = d.name AND r.version = d.version AND r.domain IS NOT DISTINCT FROM d.domain AND r.place = 1
WHERE d.place <= p.top
ORDER BY d.name, d.version, d.place;
