-- How many of the documents kept now would stay if a signal had to lie between two bounds?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    'n_words'::VARCHAR AS signal,           -- one of those that stats/quality_scores.sql lists
    100::DOUBLE AS at_least,                -- NULL: no lower bound
    NULL::DOUBLE AS at_most                 -- NULL: no upper bound
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), kept AS (
    SELECT f.name, f.version, f.source, f.doc_id
    FROM fates AS f JOIN chosen USING (name, version) WHERE f.outcome = 'kept'
), judged AS (
    SELECT k.name, k.version, k.source, m.signal,
           (p.at_least IS NULL OR m.value >= p.at_least) AND (p.at_most IS NULL OR m.value <= p.at_most) AS stays
    FROM kept AS k JOIN measures AS m USING (name, version, doc_id), params AS p
    WHERE m.signal = p.signal
)
SELECT name, version, source, signal, count(*) AS kept_now, count(*) FILTER (stays) AS would_stay,
       count(*) FILTER (NOT stays) AS would_go, round(100.0 * count(*) FILTER (stays) / count(*), 2) AS percent_stays
FROM judged
GROUP BY name, version, source, signal
ORDER BY name, version, source;
