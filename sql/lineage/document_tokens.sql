-- Where are a document's tokens: in which shard and row, and in which training samples?
-- A document that no training has read has one line for each place; offset and length count tokens in the document.
-- lost: the step was left out or taken back, so that the model has not learnt from it.
WITH params AS (SELECT
    NULL::VARCHAR AS url,                   -- an address; NULL: by doc_id
    NULL::VARCHAR AS doc_id,                -- a UUID; NULL: by url, or else ten documents
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), named AS (
    SELECT f.name, f.version, f.doc_id, f.url FROM fates AS f JOIN chosen USING (name, version), params AS p
    WHERE f.outcome = 'kept' AND (f.url = p.url OR f.url = p.url || '/' OR f.url || '/' = p.url
                                  OR f.doc_id = TRY_CAST(p.doc_id AS UUID))
    UNION ALL
    SELECT * FROM (SELECT f.name, f.version, f.doc_id, f.url
                   FROM fates AS f JOIN chosen USING (name, version), params AS p
                   WHERE p.url IS NULL AND p.doc_id IS NULL AND f.outcome = 'kept'
                   ORDER BY f.name, f.url, f.doc_id LIMIT 10)
), placed AS (
    SELECT n.name, n.version, n.url, n.doc_id, t.shard, s.file, t.row, t.repeat, t.n_tokens
    FROM named AS n
    JOIN tokens AS t ON t.name = n.name AND t.version = n.version AND t.doc_id = n.doc_id
    JOIN corpus_shards AS s ON s.name = t.name AND s.version = t.version AND s.shard = t.shard
), sampled AS (
    SELECT r.corpus AS name, r.version, k.run, k.sample_id, k.segment, k.shard, k.row, k."offset", k.length,
           k.sample_id // r.batch + 1 AS step, l.step IS NOT NULL AS lost
    FROM packing AS k JOIN trainings AS r ON r.run = k.run
    LEFT JOIN lost_steps AS l ON l.run = k.run AND l.step = k.sample_id // r.batch + 1
    WHERE k.doc_id IN (SELECT doc_id FROM named)
)
SELECT d.url, d.name, d.version, d.file, d.shard, d.row, d.repeat, d.n_tokens, s.run, s.step, s.sample_id, s.segment,
       s."offset", s.length, s.lost, d.doc_id
FROM placed AS d
LEFT JOIN sampled AS s ON s.name = d.name AND s.version = d.version AND s.shard = d.shard AND s.row = d.row
ORDER BY d.name, d.version, d.url, d.doc_id, d.shard, d.row, s.run, s.sample_id, s.segment;
