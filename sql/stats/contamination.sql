-- Which benchmark items are in which documents, and what became of these: dropped, passages cut, or tagged and kept?
-- A dropped document is shown with the item of which it holds most. Overlap is the share of the item's words, matched
-- their number where the document was kept; value and threshold are of the rule that dropped it.
WITH params AS (SELECT
    NULL::VARCHAR AS corpus,                -- a corpus; NULL: all
    NULL::BIGINT AS version,                -- a version; NULL: the current one
    NULL::VARCHAR AS benchmark,             -- a benchmark file's name without .jsonl.gz; NULL: all
    1000::BIGINT AS top                     -- rows of each corpus, those with the largest overlap
), chosen AS (
    SELECT c.name, c.version FROM corpora AS c, params AS p
    WHERE (p.corpus IS NULL OR c.name = p.corpus)
      AND CASE WHEN p.version IS NULL THEN c.is_current ELSE c.version = p.version END
), records AS (
    SELECT f.* FROM fates AS f JOIN chosen USING (name, version)
), dropped AS (
    SELECT name, version, doc_id, url, source, 'dropped' AS outcome, rule, value, threshold,
           split_part(detail, ':', 1) AS benchmark, substr(detail, strpos(detail, ':') + 1) AS item,
           NULL::INTEGER AS matched, similarity AS overlap
    FROM records
    WHERE outcome = 'dropped' AND stage = 'decontaminate'
), edited AS (
    SELECT s.* FROM spans AS s JOIN chosen USING (name, version)
    WHERE len(s.contamination) > 0
), cut AS (
    SELECT DISTINCT name, version, doc_id FROM (SELECT name, version, doc_id, unnest(spans) AS span FROM edited)
    WHERE span.type = 'benchmark'
), held AS (
    SELECT name, version, doc_id, unnest(contamination) AS found FROM edited
), kept AS (
    SELECT h.name, h.version, h.doc_id, r.url, r.source,
           CASE WHEN c.doc_id IS NULL THEN 'tagged' ELSE 'cut' END AS outcome,
           NULL::VARCHAR AS rule, NULL::DOUBLE AS value, NULL::DOUBLE AS threshold,
           h.found.benchmark AS benchmark, h.found.item AS item, h.found.matched AS matched, h.found.fraction AS overlap
    FROM held AS h
    LEFT JOIN records AS r ON r.name = h.name AND r.version = h.version AND r.doc_id = h.doc_id
    LEFT JOIN cut AS c ON c.name = h.name AND c.version = h.version AND c.doc_id = h.doc_id
), report AS (
    SELECT a.*, row_number() OVER (PARTITION BY a.name, a.version
                                   ORDER BY a.overlap DESC, a.benchmark, a.item, a.url, a.doc_id) AS place
    FROM (SELECT * FROM dropped UNION ALL SELECT * FROM kept) AS a, params AS p
    WHERE p.benchmark IS NULL OR a.benchmark = p.benchmark
)
SELECT r.name, r.version, r.benchmark, r.item, r.outcome, r.url, r.source, round(r.overlap, 4) AS overlap, r.matched,
       r.rule, r.value, r.threshold, r.doc_id
FROM report AS r, params AS p
WHERE r.place <= p.top
ORDER BY r.name, r.version, r.place;
