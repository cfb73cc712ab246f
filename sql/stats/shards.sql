-- How even are the token shards of a version?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), whole AS (
    SELECT name, version, avg(tokens) AS mean FROM corpus_shards GROUP BY name, version
)
SELECT name, version, shard, file, rows, tokens, bytes,
       round(100.0 * tokens / nullif(mean, 0), 1) AS percent_of_mean, sha256
FROM corpus_shards JOIN chosen USING (name, version) JOIN whole USING (name, version)
ORDER BY name, version, shard;
