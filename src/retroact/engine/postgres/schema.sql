-- What happened, as tables that plain SQL can read, in a schema of their own.
--
-- retroact.record is the trace: one row for each invocation, written in the same transaction as the effects that it tells of, so a row
-- is there exactly when its effects are. (run, step) is unique: inserting the record is what guards an invocation against running twice.
-- Step 0 is the run itself: a transaction that was run alone, or the beginning of a workflow, whose end is in retroact.ending.
-- What happens inside transactions of the application only ever inserts here, and nothing is read: so the record is never the reason for
-- a serialization failure. For the same reason there are no foreign keys. What is written beside them is in READ COMMITTED.
-- Read through the views: retroact.runs, retroact.records, retroact.statements, retroact.attempts.

create table retroact.meta (
    key   text primary key,                -- 'schema': version of these tables
    value text not null
);

create table retroact.process (
    id    integer generated always as identity primary key,  -- held as an advisory lock by an App for as long as it is open
    began timestamptz not null default now(),
    about text not null default coalesce(host(inet_client_addr()), 'local')
);

create table retroact.source (
    hash  text primary key,                -- of the text
    text  text not null                    -- a module of the application, as it was
);

create table retroact.code (
    hash    text primary key,              -- of the pairs below
    main    text not null,                 -- name of the main module
    sources text not null                  -- JSON: [[module, path, hash of source], ...]
);

create table retroact.function (
    id          integer generated always as identity primary key,
    name        text not null,
    kind        text not null,             -- transaction, step, workflow, sleep
    fingerprint text not null,             -- what "the same code" means for it
    code        text not null,             -- retroact.code.hash; '': its source was not at hand
    isolation   text not null,             -- of a transaction: serializable, repeatable read, read committed; else ''
    unique (name, kind, fingerprint, code, isolation)
);

create table retroact.sql (
    id       integer generated always as identity primary key,
    digest   text not null unique,         -- of the text, which may be longer than an index allows
    text     text not null,
    volatile text not null                 -- JSON: words in it whose answer is not in the database (now, random, nextval, ...)
);

create table retroact.record (
    version    bigint generated always as identity,  -- names the record. NOT the commit order, and NOT what a transaction saw
    run        text not null,
    step       integer not null,           -- 0: the run itself; else the number of the call in its workflow
    attempt    integer not null,           -- which attempt it was that came to this outcome; those before it are in retroact.attempt
    function   integer not null,           -- retroact.function.id
    arguments  text not null,              -- JSON object
    snapshot   pg_snapshot,                -- what its reads saw: the set of transactions that were done by then
    xid        xid8,                       -- the transaction that it is in; null: it wrote nothing
    began_us   bigint not null,
    elapsed_us bigint not null,
    value      text,                       -- JSON: what it returned, when it committed
    failure    text,                       -- JSON: what it raised, when it aborted
    statements text,                       -- JSON: [[sql, {parameter: value}, count, ordered digest, unordered digest], ...]
    seal       bigint not null,            -- digest of what the application's side of this row says
    opens      boolean,                    -- true: a workflow begins; it has neither value nor failure
    process    integer,                    -- of a workflow: retroact.process.id of who carries it out
    parent      text,                      -- the workflow that called this one, and as which step
    parent_step integer,
    primary key (run, step)
);

create index record_workflows on retroact.record (began_us) where opens;

create table retroact.ending (
    run      text primary key,
    state    text not null,                -- committed, aborted
    value    text,                         -- JSON: what the workflow returned
    failure  text,                         -- JSON: what it raised
    reason   text,                         -- what went wrong with its compensations
    ended_us bigint not null
);

create table retroact.aside (
    run      text primary key,             -- a workflow that does not go on by itself
    state    text not null,                -- cancelled, stopped
    reason   text,
    ended_us bigint
);

create table retroact.attempt (
    run        text not null,              -- an attempt that was aborted by the database and made again
    step       integer not null,
    attempt    integer not null,
    function   integer not null,
    began_us   bigint not null,
    elapsed_us bigint not null,
    sqlstate   text,
    message    text not null,
    statement  integer,                    -- the statement that failed, from 1; null: it failed when it was to be committed
    statements text                        -- JSON, as in retroact.record
);

create index attempt_run on retroact.attempt (run, step);

create view retroact.records as
select r.version, r.run, r.step, r.attempt, f.name as function, f.kind, f.fingerprint, nullif(f.code, '') as code, r.arguments,
       r.snapshot, r.xid, nullif(f.isolation, '') as isolation,
       case when f.isolation = 'read committed' then 'recorded-results' end as label, r.began_us, r.elapsed_us,
       case when r.failure is null then 'committed' else 'aborted' end as outcome, r.value, r.failure
from retroact.record r join retroact.function f on f.id = r.function where r.opens is null;

create view retroact.runs as
select r.run, f.name as function, f.kind,
       case when r.opens then coalesce(e.state, a.state, 'running') when r.failure is null then 'committed' else 'aborted' end as state,
       r.arguments, coalesce(e.value, r.value) as value, coalesce(e.failure, r.failure) as failure, coalesce(e.reason, a.reason) as reason,
       r.began_us, case when r.opens then coalesce(e.ended_us, a.ended_us) else r.began_us + r.elapsed_us end as ended_us,
       r.parent, r.parent_step
from retroact.record r join retroact.function f on f.id = r.function
left join retroact.ending e on e.run = r.run left join retroact.aside a on a.run = r.run
where r.step = 0;

create view retroact.statements as
select r.version, r.run, r.step, s.number as statement, q.text as sql, s.entry ->> 1 as parameters, (s.entry ->> 2)::bigint as count,
       s.entry ->> 3 as ordered, coalesce(s.entry ->> 4, s.entry ->> 3) as unordered
from retroact.record r cross join lateral json_array_elements(r.statements::json) with ordinality as s (entry, number)
join retroact.sql q on q.id = (s.entry ->> 0)::integer;

create view retroact.attempts as
select t.run, t.step, t.attempt, f.name as function, t.began_us, t.elapsed_us, t.sqlstate, t.message, t.statement
from retroact.attempt t join retroact.function f on f.id = t.function;
