-- What happened, as tables that plain SQL can read.
--
-- retroact_record is the trace: one row for each attempt of an invocation, in commit order. It is written in the same database
-- transaction as the effects that it tells of, so a row is there exactly when its effects are. (run, step, attempt) is unique:
-- inserting the record is what guards an invocation against running twice.
-- retroact_run has one row for each workflow. A transaction that is run alone needs none: its record says all.
-- The other tables hold what records name by number or hash: functions, their source, SQL texts, tables with their columns.
-- retroact_process tells how the processes hashed that wrote the records; retroact_verification what a sampled second execution found.
-- Read through the views: retroact_runs, retroact_records, retroact_statements, retroact_changes.

create table if not exists retroact_meta (
    key   text primary key,                -- 'schema': version of these tables
    value text not null
) without rowid;

create table if not exists retroact_source (
    hash  text primary key,                -- of the text
    text  text not null                    -- a module of the application, as it was
) without rowid;

create table if not exists retroact_code (
    hash    text primary key,              -- of the pairs below
    main    text not null,                 -- name of the main module
    sources text not null                  -- JSON: [[module, path, hash of source], ...]
) without rowid;

create table if not exists retroact_function (
    id          integer primary key,
    name        text not null,
    kind        text not null,             -- transaction, step, workflow, sleep
    fingerprint text not null,             -- what "the same code" means for it
    code        text,                      -- retroact_code.hash; null: its source was not at hand
    unique (name, fingerprint, code)
);

create table if not exists retroact_sql (
    id     integer primary key,
    text   text not null unique,
    reads  text not null default '[]',     -- JSON: ["table.column", ...]
    writes text not null default '[]'      -- JSON: ["table", ...]
);

create table if not exists retroact_relation (
    id      integer primary key,
    name    text not null,
    columns text not null,                 -- JSON: ["column", ...] at the time of the change; the first null: WITHOUT ROWID
    unique (name, columns)
);

create table if not exists retroact_run (
    run         text primary key,
    function    integer not null,          -- retroact_function.id
    arguments   text not null,             -- JSON object
    state       text not null,             -- running, committed, aborted, cancelled, stopped
    value       text,                      -- JSON: what it returned
    failure     text,                      -- JSON: what it raised
    reason      text,                      -- why it is stopped
    began_us    integer not null,
    ended_us    integer,
    parent      text,                      -- the workflow that called this one, and as which step
    parent_step integer
) without rowid;

create index if not exists retroact_run_open on retroact_run (state) where state not in ('committed', 'aborted');

create table if not exists retroact_record (
    version    integer primary key,        -- place in the commit order; the state as of it is what this record left
    run        text not null,
    step       integer not null,           -- 0: a transaction run alone; else the number of the call in its workflow
    attempt    integer not null,
    function   integer not null,           -- retroact_function.id
    arguments  text not null,              -- JSON object
    snapshot   integer,                    -- the version its reads saw; null: version - 1, as it is for all that write
    began_us   integer not null,
    elapsed_us integer not null,           -- until it was executed; when it was persisted is in the page log
    value      text,                       -- JSON: what it returned, when it committed
    failure    text,                       -- JSON: what it raised, when it aborted
    statements text,                       -- JSON: [[sql, {parameter: value}, count, ordered digest, unordered digest], ...]
    changes    text,                       -- JSON: [[relation, verb, rowid, cells, rowid after], ...]; cells in the order of the
                                           -- relation's columns; of an update {column: [before, after]} of what it changed; rowid
                                           -- after only where it changed; without rowid: null and [before, after]
    chain      integer not null            -- digest of this row and of the chain of the row before
);

create unique index if not exists retroact_record_guard on retroact_record (run, step, attempt);

create table if not exists retroact_process (
    since      integer primary key,        -- the first version that the process could write
    hash_seed  text,                       -- PYTHONHASHSEED; null: Python chose one, which cannot be read
    hash_probe integer not null            -- hash('retroact') in that process: equal probes, equal order of sets
);

create table if not exists retroact_verification (
    version     integer primary key,       -- of the record that was executed again, and did something else
    run         text not null,
    function    text not null,
    statement   integer,                   -- where it parted from its record; null: in its changes or its outcome
    explanation text not null,             -- in sentences
    verified_us integer not null
);

create view if not exists retroact_records as
select r.version, r.run, r.step, r.attempt, f.name as function, f.kind, f.fingerprint, f.code, r.arguments,
       coalesce(r.snapshot, r.version - 1) as snapshot, r.began_us, r.elapsed_us,
       case when r.failure is null then 'committed' else 'aborted' end as outcome, r.value, r.failure
from retroact_record r join retroact_function f on f.id = r.function;

create view if not exists retroact_runs as
select w.run, f.name as function, f.kind, w.state, w.arguments, w.value, w.failure, w.reason, w.began_us, w.ended_us,
       w.parent, w.parent_step
from retroact_run w join retroact_function f on f.id = w.function
union all
select r.run, f.name, f.kind, case when r.failure is null then 'committed' else 'aborted' end, r.arguments, r.value, r.failure,
       null, r.began_us, r.began_us + r.elapsed_us, null, null
from retroact_record r join retroact_function f on f.id = r.function where r.step = 0;

create view if not exists retroact_statements as
select r.version, r.run, r.step, s.key + 1 as statement, q.text as sql, s.value ->> 1 as parameters, s.value ->> 2 as count,
       s.value ->> 3 as ordered, coalesce(s.value ->> 4, s.value ->> 3) as unordered
from retroact_record r, json_each(r.statements) s join retroact_sql q on q.id = s.value ->> 0;

create view if not exists retroact_changes as
select r.version, r.run, r.step, c.key + 1 as change, t.name as "table", t.columns, c.value ->> 1 as verb,
       c.value ->> 2 as rowid, coalesce(c.value ->> 4, c.value ->> 2) as rowid_after, c.value -> 3 as cells
from retroact_record r, json_each(r.changes) c join retroact_relation t on t.id = c.value ->> 0;
