-- The tables of lineage.duckdb: small, rebuilt whole from the ledger's events and the corpora's manifests.
-- Times are UTC, without a zone, so that an answer does not depend on the session that asks.

-- every event of the ledger as it was written; payload is a JSON object
CREATE TABLE events (
    event_id VARCHAR, kind VARCHAR, recorded_at TIMESTAMP, run_id VARCHAR, subject VARCHAR, payload VARCHAR);

-- runs of flows; outcome: ok, failed, cancelled, or NULL for one that runs still or died without a word
CREATE TABLE runs (
    run_id VARCHAR, flow VARCHAR, started_at TIMESTAMP, ended_at TIMESTAMP, seconds DOUBLE, outcome VARCHAR,
    reason VARCHAR, parameters VARCHAR);

-- units of work that ran: one shard through one stage
CREATE TABLE shards (
    run_id VARCHAR, recorded_at TIMESTAMP, stage VARCHAR, key VARCHAR, rows_in BIGINT, rows_out BIGINT, dropped BIGINT,
    seconds DOUBLE, cpu_seconds DOUBLE, bytes BIGINT, attempts BIGINT);

-- files that a run made for people
CREATE TABLE artifacts (
    name VARCHAR, path VARCHAR, sha256 VARCHAR, bytes BIGINT, media VARCHAR, run_id VARCHAR, recorded_at TIMESTAMP);

-- what could not be read or fetched; reason is a code
CREATE TABLE failures (
    subject VARCHAR, stage VARCHAR, reason VARCHAR, attempts BIGINT, run_id VARCHAR, recorded_at TIMESTAMP);

-- published versions, from their manifests; manifest is the sha256 of manifest.json
CREATE TABLE corpora (
    name VARCHAR, version BIGINT, parent BIGINT, is_current BOOLEAN, published_at TIMESTAMP, recipe VARCHAR,
    settings_key VARCHAR, settings VARCHAR, tokenizer VARCHAR, n_vocab BIGINT, dtype VARCHAR, documents BIGINT,
    tokens BIGINT, bytes BIGINT, shards BIGINT, manifest VARCHAR);
CREATE TABLE corpus_inputs (
    name VARCHAR, version BIGINT, uri VARCHAR, source VARCHAR, snapshot VARCHAR, digest VARCHAR, bytes BIGINT);
CREATE TABLE corpus_shards (
    name VARCHAR, version BIGINT, shard BIGINT, file VARCHAR, sha256 VARCHAR, rows BIGINT, tokens BIGINT, bytes BIGINT);

-- what went into each stage and came out; position is the order of the flow
CREATE TABLE funnel (
    name VARCHAR, version BIGINT, position BIGINT, stage VARCHAR, rows_in BIGINT, kept BIGINT, dropped BIGINT);
CREATE TABLE funnel_rules (name VARCHAR, version BIGINT, stage VARCHAR, rule VARCHAR, dropped BIGINT);

-- tokens planned and achieved by source and language
CREATE TABLE mixtures (
    name VARCHAR, version BIGINT, source VARCHAR, language VARCHAR, documents BIGINT, weight DOUBLE,
    planned_tokens BIGINT, tokens BIGINT, epochs DOUBLE);

-- which Parquet file belongs to which version; path as it was at the time of the rebuild, number counts a kind's.
-- kind: documents, signals, spans (by part of the input), tokens, fates, plan, packing (name is the training run's)
CREATE TABLE files (kind VARCHAR, name VARCHAR, version BIGINT, number BIGINT, path VARCHAR);

-- trainings, and what they logged; a resumed run's last word on a step counts. Step n (from 1) takes the samples
-- from (n - 1) * batch to n * batch - 1. energy_joules count from the run's start; left_out says why a step's samples
-- were not learnt from, back_to which step's weights were taken back then.
CREATE TABLE trainings (
    run VARCHAR, task VARCHAR, corpus VARCHAR, version BIGINT, manifest VARCHAR, base VARCHAR, device VARCHAR,
    batch BIGINT, world_size BIGINT, zero_stage BIGINT, model_parameters BIGINT, steps BIGINT, tokens BIGINT,
    loss_first DOUBLE, loss_last DOUBLE, seconds DOUBLE, energy_joules DOUBLE, energy_method VARCHAR,
    started_at TIMESTAMP, ended_at TIMESTAMP, outcome VARCHAR, reason VARCHAR, settings VARCHAR);
CREATE TABLE steps (
    run VARCHAR, step BIGINT, loss DOUBLE, lr DOUBLE, tokens BIGINT, seconds DOUBLE, grad_norm DOUBLE,
    tokens_per_second DOUBLE, mfu DOUBLE, energy_joules DOUBLE, left_out VARCHAR, back_to BIGINT,
    recorded_at TIMESTAMP);
CREATE TABLE checkpoints (
    run VARCHAR, step BIGINT, path VARCHAR, sha256 VARCHAR, tokens BIGINT, samples BIGINT, bytes BIGINT,
    recorded_at TIMESTAMP);
CREATE TABLE evaluations (
    run VARCHAR, step BIGINT, task VARCHAR, metric VARCHAR, domain VARCHAR, value DOUBLE, n BIGINT, checkpoint VARCHAR,
    recorded_at TIMESTAMP);

-- ablations: the mean over seeds of a variant's models in one measure, with its 95 % interval, and the difference from
-- the first variant, paired by seed; NULL where one seed says nothing; the verdict is tasks.ablation's
CREATE TABLE ablations (
    name VARCHAR, variant VARCHAR, recipe VARCHAR, settings VARCHAR, corpus VARCHAR, version BIGINT,
    trained_tokens BIGINT, epochs DOUBLE, task VARCHAR, metric VARCHAR, domain VARCHAR, seeds BIGINT, mean DOUBLE,
    low DOUBLE, high DOUBLE, difference DOUBLE, difference_low DOUBLE, difference_high DOUBLE, p DOUBLE,
    verdict VARCHAR, run_id VARCHAR, recorded_at TIMESTAMP);

-- classifiers of quality: how they do on held-out texts, the scores that keep a share of random crawl, and in each range
-- of probability how many texts are positive; what was trained again under a name has another sha256
CREATE TABLE classifiers (
    name VARCHAR, path VARCHAR, sha256 VARCHAR, bytes BIGINT, label VARCHAR, trained_positives BIGINT,
    trained_negatives BIGINT, held_out_positives BIGINT, held_out_negatives BIGINT, vocabulary BIGINT, auc DOUBLE,
    auc_low DOUBLE, auc_high DOUBLE, brier DOUBLE, ece DOUBLE, ece_scaled DOUBLE, keep DOUBLE, threshold DOUBLE,
    true_positive BIGINT, false_positive BIGINT, false_negative BIGINT, true_negative BIGINT, precision DOUBLE,
    recall DOUBLE, settings VARCHAR, run_id VARCHAR, recorded_at TIMESTAMP);
CREATE TABLE classifier_thresholds (name VARCHAR, sha256 VARCHAR, keep DOUBLE, threshold DOUBLE);
CREATE TABLE classifier_reliability (
    name VARCHAR, sha256 VARCHAR, low DOUBLE, high DOUBLE, texts BIGINT, probability DOUBLE, positive DOUBLE);
