-- Views over the Parquet that the corpora and trainings are made of. Nothing is copied: each name in
-- braces becomes read_parquet of every file of that kind at the time of the rebuild. A file that several
-- versions share is listed once for each in the table files, and its rows appear once for each version.
-- Left out: the text, the MinHash signatures and the tokens themselves.

-- every record that gave text, kept or not
CREATE VIEW documents AS
SELECT f.name, f.version, f.number AS part, p.* EXCLUDE (filename, file_row_number), p.file_row_number AS row
FROM {documents} AS p JOIN files AS f ON f.kind = 'documents' AND f.path = p.filename;

-- the signals of each document
CREATE VIEW signals AS
SELECT f.name, f.version, f.number AS part, p.* EXCLUDE (filename, file_row_number)
FROM {signals} AS p JOIN files AS f ON f.kind = 'signals' AND f.path = p.filename;

-- the same, one row for each number
CREATE VIEW measures AS
SELECT name, version, doc_id, signal, value FROM (
    UNPIVOT (SELECT name, version, doc_id, {numbers} FROM signals)
    ON COLUMNS(* EXCLUDE (name, version, doc_id)) INTO NAME signal VALUE value);

-- what is cut and replaced in the documents that are left: type, offset and length in code points, never the value; and
-- the benchmark items of which they hold passages
CREATE VIEW spans AS
SELECT f.name, f.version, f.number AS part, p.* EXCLUDE (filename, file_row_number)
FROM {spans} AS p JOIN files AS f ON f.kind = 'spans' AND f.path = p.filename;

-- one row for each input record: kept, or dropped by which stage and rule
CREATE VIEW fates AS
SELECT f.name, f.version, p.* EXCLUDE (filename, file_row_number)
FROM {fates} AS p JOIN files AS f ON f.kind = 'fates' AND f.path = p.filename;

-- which documents a version takes, how often and into which token shard
CREATE VIEW plan AS
SELECT f.name, f.version, p.* EXCLUDE (filename, file_row_number)
FROM {plan} AS p JOIN files AS f ON f.kind = 'plan' AND f.path = p.filename;

-- one row for each document in a token shard; shard counts the files of the version, row is the index in the file
CREATE VIEW tokens AS
SELECT f.name, f.version, f.number AS shard, p.file_row_number AS row, p.* EXCLUDE (filename, file_row_number)
FROM {tokens} AS p JOIN files AS f ON f.kind = 'tokens' AND f.path = p.filename;

-- the steps whose samples a run has not learnt from: left out, or since the step whose weights were taken back
CREATE VIEW lost_steps AS
SELECT DISTINCT run, unnest(range(coalesce(back_to + 1, step), step + 1)) AS step FROM steps WHERE left_out IS NOT NULL;

-- which tokens of which shard row make up each training sample; of a finetuning which instruction rows, whose shard and
-- doc_id are NULL
CREATE VIEW packing AS
SELECT f.name AS run, p.* EXCLUDE (filename, file_row_number)
FROM {packing} AS p JOIN files AS f ON f.kind = 'packing' AND f.path = p.filename;
