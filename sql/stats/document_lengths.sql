-- How long are the kept documents, in tokens?
-- Classes double in length.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), lengths AS (
    SELECT name, version, n_tokens, pow(2, floor(log2(greatest(n_tokens, 1))))::BIGINT AS at_least
    FROM tokens JOIN chosen USING (name, version)
    WHERE repeat = 0
)
SELECT name, version, at_least, 2 * at_least AS below, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
       round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY name, version), 2) AS percent_of_documents,
       round(100.0 * sum(n_tokens) / sum(sum(n_tokens)) OVER (PARTITION BY name, version), 2) AS percent_of_tokens
FROM lengths
GROUP BY name, version, at_least
ORDER BY name, version, at_least;
