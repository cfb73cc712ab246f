-- Which versions and which checkpoints contain a domain?
-- A version that no checkpoint was trained on has one line. A model finetuned
-- from a checkpoint has seen what that one saw. Steps that were left out or
-- taken back do not count as seen.
WITH params AS (SELECT
    NULL::VARCHAR AS domain,                -- a host name; NULL: the largest one
    NULL::VARCHAR AS corpus                 -- a corpus; NULL: all
), largest AS (
    SELECT domain FROM tokens WHERE domain IS NOT NULL GROUP BY domain ORDER BY sum(n_tokens) DESC, domain LIMIT 1
), parts AS (
    SELECT t.* FROM tokens AS t, params AS p
    WHERE (p.corpus IS NULL OR t.name = p.corpus)
      AND (t.domain = p.domain OR (p.domain IS NULL AND t.domain IN (SELECT domain FROM largest)))
), versions AS (
    SELECT name, version, domain, count(DISTINCT doc_id) AS documents, sum(n_tokens)::BIGINT AS tokens
    FROM parts GROUP BY name, version, domain
), read AS (                -- what a checkpoint's model had seen of it
    SELECT r.corpus AS name, r.version, k.run, c.step, c.path, sum(k.length)::BIGINT AS tokens_seen
    FROM packing AS k
    JOIN trainings AS r ON r.run = k.run
    JOIN parts AS t ON t.name = r.corpus AND t.version = r.version AND t.shard = k.shard AND t.row = k.row
    JOIN checkpoints AS c ON c.run = k.run AND k.sample_id < c.samples
    LEFT JOIN lost_steps AS l ON l.run = k.run AND l.step = k.sample_id // r.batch + 1
    WHERE l.step IS NULL
    GROUP BY r.corpus, r.version, k.run, c.step, c.path
)
SELECT v.domain, v.name, v.version, v.documents, v.tokens, r.run, r.step, r.path AS checkpoint, r.tokens_seen
FROM versions AS v LEFT JOIN read AS r ON r.name = v.name AND r.version = v.version
ORDER BY v.name, v.version, r.run, r.step;
