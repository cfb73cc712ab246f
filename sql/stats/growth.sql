-- How has each corpus grown from version to version?
-- records are those that went into the first stage.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus                 -- a corpus; NULL: all
)
SELECT c.name, c.version, c.parent, c.is_current, c.published_at, i.inputs, f.records, c.documents,
       c.documents - b.documents AS more_documents, c.tokens, c.tokens - b.tokens AS more_tokens,
       round(100.0 * (c.tokens - b.tokens) / nullif(b.tokens, 0), 2) AS percent_more, c.bytes, c.shards
FROM params AS p, corpora AS c
LEFT JOIN corpora AS b ON b.name = c.name AND b.version = c.parent
LEFT JOIN (SELECT name, version, count(*) AS inputs FROM corpus_inputs GROUP BY name, version) AS i
    ON i.name = c.name AND i.version = c.version
LEFT JOIN (SELECT name, version, rows_in AS records FROM funnel WHERE position = 0) AS f
    ON f.name = c.name AND f.version = c.version
WHERE p.corpus IS NULL OR c.name = p.corpus
ORDER BY c.name, c.version;
