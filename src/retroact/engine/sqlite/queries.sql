-- The statements of the SQLite engine, by name. Each block begins with its name and says in a line what it is for.

-- name: insert_record
-- the record of an attempt; its uniqueness is the guard against running an invocation twice
insert into retroact_record (version, run, step, attempt, function, arguments, snapshot, began_us, elapsed_us, value, failure, statements, changes, chain)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_record_alone
-- the same for a transaction that is run alone under an id that its caller chose: it must not be that of a workflow
insert into retroact_record (version, run, step, attempt, function, arguments, snapshot, began_us, elapsed_us, value, failure, statements, changes, chain)
select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 where not exists (select 1 from retroact_run where run = ?2)

-- name: insert_run
-- a workflow begins; does nothing when it has begun already
insert into retroact_run (run, function, arguments, state, value, failure, began_us, ended_us, parent, parent_step)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (run) do nothing

-- name: end_run
-- a workflow ends, or is put aside, unless it has its outcome already
update retroact_run set state = :state, value = :value, failure = :failure, reason = :reason, ended_us = :ended_us
where run = :run and state not in ('committed', 'aborted')

-- name: insert_sql
-- a statement text seen for the first time
insert or ignore into retroact_sql (id, text, reads, writes) values (?, ?, ?, ?)

-- name: insert_function
-- a function with its code, seen for the first time
insert or ignore into retroact_function (id, name, kind, fingerprint, code) values (?, ?, ?, ?, ?)

-- name: insert_relation
-- a table with its columns, changed for the first time
insert or ignore into retroact_relation (id, name, columns) values (?, ?, ?)

-- name: insert_source
-- a module's text
insert or ignore into retroact_source (hash, text) values (?, ?)

-- name: insert_code
-- the modules that belong together
insert or ignore into retroact_code (hash, main, sources) values (?, ?, ?)

-- name: insert_process
-- how the process hashes that writes from this version on
insert or replace into retroact_process (since, hash_seed, hash_probe) values (?, ?, ?)

-- name: last_process
-- how the last process hashed
select hash_seed, hash_probe from retroact_process order by since desc limit 1

-- name: process_of
-- how the process hashed that wrote a version
select hash_seed, hash_probe from retroact_process where since <= ? order by since desc limit 1

-- name: last_record
-- where the trace stands
select version, chain from retroact_record order by version desc limit 1

-- name: last_version
-- the snapshot of a reader: the newest version that it sees
select max(version) from retroact_record

-- name: all_sql
-- statement texts and their numbers
select text, id from retroact_sql

-- name: all_functions
-- functions and their numbers
select id, name, kind, fingerprint, code from retroact_function

-- name: all_relations
-- tables and their numbers
select id, name, columns from retroact_relation

-- name: all_codes
-- the hashes of code that is stored
select hash from retroact_code

-- name: code
-- the modules of one version of the code
select main, sources from retroact_code where hash = ?

-- name: has_code
-- whether one version of the code is stored
select 1 from retroact_code where hash = ?

-- name: source
-- the text of one module
select text from retroact_source where hash = ?

-- name: guard
-- the outcome of an invocation that has been run
select value, failure, function from retroact_record where run = ? and step = ? order by attempt desc limit 1

-- name: run
-- one run: a workflow, or a transaction that was run alone
select w.run, w.function, w.arguments, w.state, w.value, w.failure, w.reason, w.began_us, w.ended_us, w.parent, w.parent_step
from retroact_run w where w.run = ?1
union all
select run, function, arguments, case when failure is null then 'committed' else 'aborted' end, value, failure, null, began_us, began_us + elapsed_us, null, null
from retroact_record where run = ?1 and step = 0 and not exists (select 1 from retroact_run where run = ?1)

-- name: open_runs
-- workflows that have no outcome yet
select w.run, w.function, w.arguments, w.state, w.value, w.failure, w.reason, w.began_us, w.ended_us, w.parent, w.parent_step
from retroact_run w where w.state not in ('committed', 'aborted') order by w.began_us, w.run

-- name: records_of_run
-- what a run did
select version, run, step, attempt, function, arguments, coalesce(snapshot, version - 1), began_us, elapsed_us, value, failure, statements, changes
from retroact_record where run = ? order by version

-- name: records_between
-- what happened after one version and up to another
select version, run, step, attempt, function, arguments, coalesce(snapshot, version - 1), began_us, elapsed_us, value, failure, statements, changes
from retroact_record where version > ? and version <= ? order by version

-- name: chained
-- the records with their links, to see whether one was changed
select version, run, step, attempt, function, arguments, snapshot, began_us, elapsed_us, value, failure, statements, changes, chain
from retroact_record where version > ? and version <= ? order by version

-- name: link
-- the link of one record
select chain from retroact_record where version = ?

-- name: runs
-- runs, newest first: workflows, and transactions that were run alone
select run, function, arguments, state, value, failure, reason, began_us, ended_us, parent, parent_step from retroact_run
where began_us >= :since and began_us <= :until
union all
select run, function, arguments, case when failure is null then 'committed' else 'aborted' end, value, failure, null, began_us, began_us + elapsed_us, null, null
from retroact_record where step = 0 and began_us >= :since and began_us <= :until
order by began_us desc, run desc limit :most

-- name: reach
-- the first and the last version that a run wrote
select min(version), max(version) from retroact_record where run = ?

-- name: reach_of_these
-- the first snapshot, the last and the first version of some runs, and which of their calls are workflows
select min(coalesce(r.snapshot, r.version - 1)), max(r.version), min(r.version),
       json_group_array(json_array(r.run, r.step)) filter (where r.function in (select id from retroact_function where kind = 'workflow'))
from json_each(?) these join retroact_record r on r.run = these.value

-- name: these_runs
-- some workflows
select w.run, w.function, w.arguments, w.state, w.value, w.failure, w.reason, w.began_us, w.ended_us, w.parent, w.parent_step
from json_each(?) these join retroact_run w on w.run = these.value

-- name: keep_verified
-- how far verification has come
insert or replace into retroact_meta (key, value) values ('verified', ?)

-- name: insert_verification
-- a transaction that did something else when it was executed again
insert or replace into retroact_verification (version, run, function, statement, explanation, verified_us) values (?, ?, ?, ?, ?, ?)

-- name: forget_verifications
-- keep the newest
delete from retroact_verification where version not in (select version from retroact_verification order by version desc limit ?)

-- name: verified
-- how far verification has come
select value from retroact_meta where key = 'verified'

-- name: verifications
-- what verification has found, newest first
select version, run, function, statement, explanation, verified_us from retroact_verification order by version desc

-- name: runs_between
-- which run wrote which version
select version, run from retroact_record where version > ? and version <= ? order by version

-- name: newest_fingerprint
-- the newest code of a function
select fingerprint from retroact_function where name = ? order by id desc limit 1
