-- How are the values of each signal distributed, among kept and dropped documents?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    NULL::VARCHAR AS signal                 -- a signal, such as n_words; NULL: all
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), outcomes AS (
    SELECT name, version, doc_id, outcome FROM fates JOIN chosen USING (name, version)
)
SELECT m.name, m.version, m.signal, o.outcome, count(*) AS documents, round(min(m.value), 4) AS smallest,
       round(quantile_cont(m.value, 0.05), 4) AS p5, round(quantile_cont(m.value, 0.25), 4) AS p25,
       round(quantile_cont(m.value, 0.5), 4) AS median, round(quantile_cont(m.value, 0.75), 4) AS p75,
       round(quantile_cont(m.value, 0.95), 4) AS p95, round(max(m.value), 4) AS largest, round(avg(m.value), 4) AS mean
FROM measures AS m JOIN outcomes AS o USING (name, version, doc_id), params AS p
WHERE p.signal IS NULL OR m.signal = p.signal
GROUP BY m.name, m.version, m.signal, o.outcome
ORDER BY m.name, m.version, m.signal, o.outcome DESC;
