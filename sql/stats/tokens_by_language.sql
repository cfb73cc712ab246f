-- How many documents and tokens does each language give?
-- A document that is taken more than once counts once as a document, and with all its tokens.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
)
SELECT name, version, language, count(DISTINCT doc_id) AS documents, sum(n_tokens)::BIGINT AS tokens,
       round(100.0 * sum(n_tokens) / sum(sum(n_tokens)) OVER (PARTITION BY name, version), 2) AS percent,
       round(sum(n_tokens) / count(DISTINCT doc_id), 1) AS tokens_per_document,
       round(sum(n_bytes) / sum(n_tokens), 3) AS bytes_per_token, max(repeat) + 1 AS passes
FROM tokens JOIN chosen USING (name, version)
GROUP BY name, version, language
ORDER BY name, version, tokens DESC, language;
