-- How large are the clusters of duplicates, and how many of each size are there?
-- The size counts the survivor; near are those that MinHash found, the others were equal in URL or text.
WITH RECURSIVE params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version                 -- a version; NULL: the current one
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), duplicates AS (
    SELECT name, version, doc_id, duplicate_of, rule
    FROM fates JOIN chosen USING (name, version)
    WHERE outcome = 'dropped' AND duplicate_of IS NOT NULL
), climb AS (               -- from each duplicate to what it duplicates, until that one is no duplicate
    SELECT name, version, doc_id, rule, duplicate_of AS survivor, 1 AS depth FROM duplicates
    UNION ALL
    SELECT c.name, c.version, c.doc_id, c.rule, d.duplicate_of, c.depth + 1
    FROM climb AS c JOIN duplicates AS d ON d.name = c.name AND d.version = c.version AND d.doc_id = c.survivor
    WHERE c.depth < 100
), clusters AS (
    SELECT name, version, survivor, count(DISTINCT doc_id) + 1 AS size,
           count(DISTINCT doc_id) FILTER (rule = 'near') AS near
    FROM climb
    WHERE (name, version, survivor) NOT IN (SELECT (name, version, doc_id) FROM duplicates)
    GROUP BY name, version, survivor
)
SELECT name, version, size, count(*) AS clusters, sum(size - 1)::BIGINT AS removed,
       sum(near)::BIGINT AS removed_as_near, min(survivor) AS a_survivor
FROM clusters
GROUP BY name, version, size
ORDER BY name, version, size DESC;
