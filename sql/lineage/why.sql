-- Why was a URL dropped, or was it kept?
-- With a final slash or without, the address is the same here.
WITH params AS (SELECT
    NULL::VARCHAR AS url,                   -- an address; NULL: twenty that were dropped
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: every one with an address, else the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NOT NULL THEN c.version = p.version ELSE c.is_current OR p.url IS NOT NULL END
), asked AS (
    SELECT f.* FROM fates AS f JOIN chosen USING (name, version), params AS p
    WHERE f.url = p.url OR f.url = p.url || '/' OR f.url || '/' = p.url
    UNION ALL
    SELECT * FROM (SELECT f.* FROM fates AS f JOIN chosen USING (name, version), params AS p
                   WHERE p.url IS NULL AND f.outcome = 'dropped' ORDER BY f.name, f.url, f.doc_id LIMIT 20)
), winners AS (
    SELECT name, version, doc_id, any_value(url) AS url FROM fates
    WHERE doc_id IN (SELECT duplicate_of FROM asked) GROUP BY name, version, doc_id
)
SELECT a.url, a.name, a.version, a.outcome, a.stage, a.rule, a.value, a.threshold, a.detail, a.similarity,
       w.url AS duplicate_of_url, a.duplicate_of, a.failed AS rules_failed, a.snapshot, a.source,
       a.warc_file, a.warc_offset, a.doc_id
FROM asked AS a
LEFT JOIN winners AS w ON w.name = a.name AND w.version = a.version AND w.doc_id = a.duplicate_of
ORDER BY a.name, a.version DESC, a.url, a.snapshot, a.doc_id;
