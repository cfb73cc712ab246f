-- How does the mixture that was planned compare with what was achieved?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), whole AS (
    SELECT name, version, sum(planned_tokens) AS planned, sum(tokens) AS achieved FROM mixtures GROUP BY name, version
)
SELECT name, version, source, language, documents, weight, planned_tokens, tokens,
       round(100.0 * tokens / nullif(planned_tokens, 0), 2) AS percent_of_plan,
       round(100.0 * planned_tokens / nullif(planned, 0), 2) AS planned_share,
       round(100.0 * tokens / nullif(achieved, 0), 2) AS achieved_share, epochs
FROM mixtures JOIN chosen USING (name, version) JOIN whole USING (name, version)
ORDER BY name, version, tokens DESC, source, language;
