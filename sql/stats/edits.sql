-- What was cut or replaced in the texts that are left, by type: lines, personal data, passages of benchmarks?
-- Counts only: where it was is in the view spans, and what it was is nowhere.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), found AS (
    SELECT name, version, doc_id, unnest(spans) AS span FROM spans JOIN chosen USING (name, version)
)
SELECT name, version, span.type AS type, count(*) AS spans, count(DISTINCT doc_id) AS documents,
       sum(span.length)::BIGINT AS characters
FROM found
GROUP BY name, version, span.type
ORDER BY name, version, spans DESC, type;
