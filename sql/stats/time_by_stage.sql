-- How long did each stage take in each run, and how fast was it?
-- Seconds are summed over processes; a unit is one shard through one stage.
WITH params AS (SELECT
    NULL::VARCHAR AS run_id                 -- a run; NULL: all
)
SELECT r.started_at, s.run_id, r.flow, s.stage, count(*) AS units, sum(s.rows_in)::BIGINT AS rows_in,
       sum(s.dropped)::BIGINT AS dropped, round(sum(s.seconds), 3) AS seconds,
       round(sum(s.cpu_seconds), 3) AS cpu_seconds, round(max(s.seconds), 3) AS longest_unit,
       round(sum(s.rows_in) / nullif(sum(s.seconds), 0), 1) AS rows_per_second
FROM params AS p, shards AS s LEFT JOIN runs AS r ON r.run_id = s.run_id
WHERE p.run_id IS NULL OR s.run_id = p.run_id
GROUP BY r.started_at, s.run_id, r.flow, s.stage
ORDER BY r.started_at, s.run_id, min(s.recorded_at), s.stage;
