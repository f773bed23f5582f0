-- What is taken out of a database's trace for a portable one, and put into that. Each block begins with its name.

-- name: oldest_snapshot
-- the oldest state that a transaction of a span saw
select min(coalesce(snapshot, version - 1)) from retroact_record where version > ? and version <= ?

-- name: schema_versions
-- the records of a span that changed more than rows: that entry is the first of their changes
select version from retroact_record where version > ? and version <= ? and changes like '[[0,"s"%' order by version

-- name: whole_runs
-- workflows that ended, all of whose records lie in a span: run, parent
select w.run, w.parent from retroact_run w
where w.state in ('committed', 'aborted') and w.run in (select run from retroact_record where version > :after and version <= :until)
and not exists (select 1 from retroact_record r where r.run = w.run and (r.version <= :after or r.version > :until))

-- name: children
-- the workflows that a run called, by their own ids
select run || '.' || step from retroact_record r join retroact_function f on f.id = r.function where r.run = ? and f.kind = 'workflow'

-- name: run_row
-- one workflow as it is stored
select run, function, arguments, state, value, failure, reason, began_us, ended_us, parent, parent_step from retroact_run where run = ?

-- name: span
-- the versions that there are
select min(version), max(version) from retroact_record

-- name: processes
-- how the processes hashed that wrote a span
select since, hash_seed, hash_probe from retroact_process
where since <= :until and since >= (select coalesce(max(since), 0) from retroact_process where since <= :first)

-- name: insert_run_row
-- the same, stored
insert into retroact_run (run, function, arguments, state, value, failure, reason, began_us, ended_us, parent, parent_step)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: sql_row
-- one statement text
select id, text, reads, writes from retroact_sql where id = ?

-- name: function_row
-- one function
select id, name, kind, fingerprint, code from retroact_function where id = ?

-- name: relation_row
-- one table with its columns
select id, name, columns from retroact_relation where id = ?

-- name: insert_meta
-- the version of the tables
insert into retroact_meta values ('schema', ?)

-- name: tables
-- the tables of the application, and SQLite's own
select name, wr from pragma_table_list where schema = 'main' and type in ('table', 'shadow') and name != 'sqlite_schema'
and name not like 'retroact\_%' escape '\' order by name

-- name: roots
-- every b-tree of a state: its root page, its name, its table
select rootpage, name, tbl_name from sqlite_schema where rootpage > 0 union all select 1, 'sqlite_schema', 'sqlite_schema' order by 1

-- name: indexes
-- the indexes of a table by name
select name from pragma_index_list(?) order by name

-- name: index_columns
-- the columns of an index, null for an expression
select name from pragma_index_info(?) order by seqno

-- name: names
-- every table that can be asked for by name
select name from sqlite_schema where type = 'table' and name not like 'sqlite\_%' escape '\' order by name
