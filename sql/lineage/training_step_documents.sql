-- Which documents was the model shown in a training step?
-- offset and length count tokens in the document. lost: the step was left out
-- or taken back, so that the model has not learnt from it.
WITH params AS (SELECT
    NULL::VARCHAR AS run,                   -- a training; NULL: the last pretraining
    1::BIGINT AS step                       -- counted from 1
), chosen AS (
    SELECT t.run, t.corpus, t.version, p.step, t.batch,
           EXISTS (SELECT 1 FROM lost_steps AS l WHERE l.run = t.run AND l.step = p.step) AS lost
    FROM trainings AS t, params AS p
    WHERE t.run = coalesce(p.run, (SELECT arg_max(run, started_at) FROM trainings
                                   WHERE task = 'pretrain' AND run IN (SELECT name FROM files WHERE kind = 'packing')))
)
SELECT c.run, c.step, k.sample_id, k.segment, d.url, t.domain, t.source, t.language, k.shard, k.row, k."offset",
       k.length, t.repeat, c.lost, k.doc_id
FROM chosen AS c
JOIN packing AS k ON k.run = c.run AND k.sample_id >= (c.step - 1) * c.batch AND k.sample_id < c.step * c.batch
LEFT JOIN tokens AS t ON t.name = c.corpus AND t.version = c.version AND t.shard = k.shard AND t.row = k.row
LEFT JOIN fates AS d ON d.name = c.corpus AND d.version = c.version AND d.doc_id = k.doc_id AND d.outcome = 'kept'
ORDER BY k.sample_id, k.segment;
