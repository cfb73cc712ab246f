-- Which models were trained on what, how far, and at what cost?
WITH params AS (SELECT
    NULL::VARCHAR AS corpus                 -- a corpus; NULL: all
)
SELECT t.run, t.task, t.corpus, t.version, t.outcome, t.started_at, round(t.seconds, 1) AS seconds, t.model_parameters,
       coalesce(t.steps, s.steps) AS steps, coalesce(t.tokens, s.tokens) AS tokens,
       round(coalesce(t.loss_first, s.loss_first), 4) AS loss_first,
       round(coalesce(t.loss_last, s.loss_last), 4) AS loss_last,
       round(t.energy_joules / 3600, 2) AS energy_wh, t.energy_method, c.checkpoints
FROM params AS p, trainings AS t
LEFT JOIN (SELECT run, max(step) AS steps, max(tokens) AS tokens, arg_min(loss, step) AS loss_first,
                  arg_max(loss, step) AS loss_last FROM steps GROUP BY run) AS s ON s.run = t.run
LEFT JOIN (SELECT run, count(*) AS checkpoints FROM checkpoints GROUP BY run) AS c ON c.run = t.run
WHERE p.corpus IS NULL OR t.corpus = p.corpus
ORDER BY t.started_at, t.run;
