-- Which domains give the most tokens?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    50::BIGINT AS top                       -- how many domains of each corpus
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), domains AS (
    SELECT name, version, domain, count(DISTINCT doc_id) AS documents, sum(n_tokens)::BIGINT AS tokens,
           round(100.0 * sum(n_tokens) / sum(sum(n_tokens)) OVER (PARTITION BY name, version), 2) AS percent,
           row_number() OVER (PARTITION BY name, version ORDER BY sum(n_tokens) DESC, domain) AS place
    FROM tokens JOIN chosen USING (name, version)
    GROUP BY name, version, domain
)
SELECT name, version, domain, documents, tokens, percent
FROM domains
WHERE place <= (SELECT top FROM params)
ORDER BY name, version, place;
