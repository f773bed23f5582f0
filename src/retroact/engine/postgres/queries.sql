-- The statements of the Postgres engine, by name. Each block begins with its name and says in a line what it is for.
-- Those whose names begin with retroact_ are prepared on every connection under that name.

-- name: retroact_record
-- the record of what wrote, or was tried to; its uniqueness is the guard against running an invocation twice
prepare retroact_record (text, int, int, int, text, bigint, bigint, text, text, text, bigint) as
insert into retroact.record (run, step, attempt, function, arguments, began_us, elapsed_us, value, failure, statements, seal, snapshot, xid)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, pg_current_snapshot(), pg_current_xact_id())

-- name: retroact_result
-- the record of what is no writing transaction: a step, a read, an aborted attempt; its snapshot, if any, is told
prepare retroact_result (text, int, int, int, text, bigint, bigint, text, text, text, bigint, pg_snapshot) as
insert into retroact.record (run, step, attempt, function, arguments, began_us, elapsed_us, value, failure, statements, seal, snapshot)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: retroact_read
-- the same for a read whose record comes later: two callers with one id may both have read, and the first record stands
prepare retroact_read (text, int, int, int, text, bigint, bigint, text, text, text, bigint, pg_snapshot) as
insert into retroact.record (run, step, attempt, function, arguments, began_us, elapsed_us, value, failure, statements, seal, snapshot)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (run, step) do nothing

-- name: retroact_begin
-- a workflow begins; does nothing when it has begun already
prepare retroact_begin (text, int, text, bigint, text, int, bigint, int) as
insert into retroact.record (run, step, attempt, function, arguments, began_us, elapsed_us, parent, parent_step, seal, opens, process)
values ($1, 0, 1, $2, $3, $4, 0, $5, $6, $7, true, $8) on conflict (run, step) do nothing

-- name: retroact_end
-- a workflow has its outcome
prepare retroact_end (text, text, text, text, text, bigint) as
insert into retroact.ending (run, state, value, failure, reason, ended_us) values ($1, $2, $3, $4, $5, $6)

-- name: retroact_attempt
-- an attempt that the database aborted
prepare retroact_attempt (text, int, int, int, bigint, bigint, text, text, int, text) as
insert into retroact.attempt (run, step, attempt, function, began_us, elapsed_us, sqlstate, message, statement, statements)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: retroact_outcome
-- what is recorded of an invocation
prepare retroact_outcome (text, int) as
select f.name, r.value, r.failure, r.opens from retroact.record r join retroact.function f on f.id = r.function where r.run = $1 and r.step = $2

-- name: retroact_present
-- whether there is such a run; most that are asked for are new, and this is planned once
prepare retroact_present (text) as select 1 from retroact.record where run = $1 and step = 0

-- name: retroact_run
-- one run
prepare retroact_run (text) as
select r.run, f.name, f.kind, f.fingerprint, nullif(f.code, ''), r.arguments,
       case when r.opens then coalesce(e.state, a.state, 'running') when r.failure is null then 'committed' else 'aborted' end,
       coalesce(e.value, r.value), coalesce(e.failure, r.failure), coalesce(e.reason, a.reason), r.began_us,
       case when r.opens then coalesce(e.ended_us, a.ended_us) else r.began_us + r.elapsed_us end, r.parent, r.parent_step
from retroact.record r join retroact.function f on f.id = r.function
left join retroact.ending e on e.run = r.run left join retroact.aside a on a.run = r.run where r.run = $1 and r.step = 0

-- name: settings
-- what a connection is set to: bodies get their isolation by name, everything of ours runs in read committed
set default_transaction_isolation to 'read committed'; set default_transaction_read_only to off; set standard_conforming_strings to on;
set timezone to 'UTC'; set datestyle to 'ISO, YMD'; set intervalstyle to 'postgres'; set extra_float_digits to 1; set bytea_output to 'hex';
set client_min_messages to warning

-- name: put_aside
-- a workflow does not go on by itself, unless it has its outcome already
insert into retroact.aside (run, state, reason, ended_us)
select {run}, {state}, {reason}, {ended_us} where not exists (select 1 from retroact.ending where run = {run})
on conflict (run) do update set state = excluded.state, reason = excluded.reason, ended_us = excluded.ended_us

-- name: put_back
-- a workflow that was put aside goes on
update retroact.record set process = {process} where run = {run} and step = 0 and opens;
delete from retroact.aside where run = {run}

-- name: new_process
-- a number for an App
insert into retroact.process default values returning id

-- name: hold
-- the number is held as long as its connection is there; the first number says that it is ours (it spells "retr"). It is never waited
-- for: who could hold it is a connection of ours that the server does not yet know to be gone
select pg_try_advisory_lock(1919251570, {number})

-- name: take_over
-- the open workflows of processes that are no longer there become this one's; who comes second finds that they are somebody's again
update retroact.record r set process = {process}
where r.opens and r.process is distinct from {process} and not exists (select 1 from retroact.ending e where e.run = r.run)
and not exists (
    select 1 from pg_locks l where l.locktype = 'advisory' and l.classid = 1919251570 and l.objid = r.process::oid and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
)

-- name: learn_sql
-- a statement text seen for the first time by this process
insert into retroact.sql (digest, text, volatile) values ({digest}, {text}, {volatile}) on conflict (digest) do nothing

-- name: sql_number
-- the number of a text
select id from retroact.sql where digest = {digest}

-- name: all_sql
-- statement texts and their numbers
select text, id from retroact.sql

-- name: all_functions
-- functions and their numbers
select id, name, kind, fingerprint, code, isolation from retroact.function

-- name: insert_function
-- a function with its code, seen for the first time
insert into retroact.function (name, kind, fingerprint, code, isolation) values ({name}, {kind}, {fingerprint}, {code}, {isolation})
on conflict do nothing

-- name: all_codes
-- the hashes of code that is stored
select hash from retroact.code

-- name: insert_source
-- a module's text
insert into retroact.source (hash, text) values ({hash}, {text}) on conflict do nothing

-- name: insert_code
-- the modules that belong together
insert into retroact.code (hash, main, sources) values ({hash}, {main}, {sources}) on conflict do nothing

-- name: code
-- the modules of one version of the code
select main, sources from retroact.code where hash = {hash}

-- name: source
-- the text of one module
select text from retroact.source where hash = {hash}

-- name: open_runs
-- workflows that have no outcome yet
select r.run, f.name, f.kind, f.fingerprint, nullif(f.code, ''), r.arguments, coalesce(a.state, 'running'), null, null, a.reason,
       r.began_us, a.ended_us, r.parent, r.parent_step
from retroact.record r join retroact.function f on f.id = r.function left join retroact.aside a on a.run = r.run
where r.opens and not exists (select 1 from retroact.ending e where e.run = r.run)
and ({process}::int is null or r.process = {process}) order by r.began_us, r.run

-- name: runs
-- runs, newest first
select r.run, f.name, f.kind, f.fingerprint, nullif(f.code, ''), r.arguments,
       case when r.opens then coalesce(e.state, a.state, 'running') when r.failure is null then 'committed' else 'aborted' end,
       coalesce(e.value, r.value), coalesce(e.failure, r.failure), coalesce(e.reason, a.reason), r.began_us,
       case when r.opens then coalesce(e.ended_us, a.ended_us) else r.began_us + r.elapsed_us end, r.parent, r.parent_step
from retroact.record r join retroact.function f on f.id = r.function
left join retroact.ending e on e.run = r.run left join retroact.aside a on a.run = r.run
where r.step = 0 and r.began_us between {since} and {until} order by r.began_us desc, r.run desc limit {most}

-- name: records_of_run
-- what a run did; a workflow's own beginning is none of its calls
select r.version, r.run, r.step, r.attempt, r.arguments, r.began_us, r.elapsed_us, r.value, r.failure, r.statements,
       r.snapshot::text, r.xid::text, f.name, f.kind, f.fingerprint, nullif(f.code, '')
from retroact.record r join retroact.function f on f.id = r.function where r.run = {run} and r.opens is null order by r.version

-- name: records_between
-- the records whose numbers lie after one and up to another
select r.version, r.run, r.step, r.attempt, r.arguments, r.began_us, r.elapsed_us, r.value, r.failure, r.statements,
       r.snapshot::text, r.xid::text, f.name, f.kind, f.fingerprint, nullif(f.code, '')
from retroact.record r join retroact.function f on f.id = r.function
where r.version > {after} and r.version <= {until} and r.opens is null order by r.version

-- name: sealed
-- the records with their seals, to see whether one was changed; some at a time, in the order of the key
select version, run, step, attempt, function, arguments, began_us, elapsed_us, value, failure, statements, opens, parent, parent_step, seal
from retroact.record where (run, step) > ({run}, {step}) and version > {after} and version <= {until} order by run, step limit {most}

-- name: last_version
-- the greatest number that a record was given
select coalesce(max(version), 0) from retroact.record

-- name: reach
-- the first and the last record of a run
select min(version), max(version) from retroact.record where run = {run} and opens is null

-- name: installed
-- whether the tables are there, and whether their schema is; asked of the catalogue itself, since its caches may be behind
select exists (select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'retroact' and c.relname = 'meta'),
       exists (select 1 from pg_namespace where nspname = 'retroact')

-- name: schema_version
-- which tables these are
select value from retroact.meta where key = 'schema'

-- name: mark_installed
-- the tables are there
insert into retroact.meta values ('schema', {version})
