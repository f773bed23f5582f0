-- The statements by which the past is forgotten, by name. First the horizon is moved, in one transaction; then what lies before it is
-- cleared away in small ones, each of which can be the last for now: the next compaction goes on.

-- name: horizon
-- where the kept past begins
select value from retroact_meta where key = 'horizon'

-- name: set_horizon
-- move it
insert into retroact_meta (key, value) values ('horizon', ?) on conflict (key) do update set value = excluded.value

-- name: version_by
-- the newest version that began at or before a time
select version, began_us, chain from retroact_record where began_us <= ? order by version desc limit 1

-- name: version_at
-- one version, with when it began and its link
select version, began_us, chain from retroact_record where version = ?

-- name: open_runs
-- runs without an outcome: nothing of them, nor of the runs that they called, is dropped
select run from retroact_run where state not in ('committed', 'aborted')

-- name: first_protected
-- the oldest record of a run without an outcome
select min(r.version) from retroact_record r, json_each(:open) o
where (r.run = o.value or (r.run > o.value || '.' and r.run < o.value || '/')) and r.version <= :until

-- name: clear_records
-- of records, everything but what shows that an invocation was run, and what came of it
update retroact_record set statements = null, changes = null, arguments = '{}'
where version > :after and version <= :until and (statements is not null or changes is not null or arguments <> '{}')
and not exists (select 1 from json_each(:open) o where run = o.value or substr(run, 1, length(o.value) + 1) = o.value || '.')

-- name: clear_runs
-- the arguments of workflows whose records are all being cleared
update retroact_run set arguments = '{}'
where run in (select run from retroact_record where version > :after and version <= :until and step > 0)
and state in ('committed', 'aborted') and arguments <> '{}'
and not exists (select 1 from retroact_record r where r.run = retroact_run.run and r.version > :horizon)

-- name: forget_outcomes
-- records with their outcomes: these run ids are free again
delete from retroact_record where version > :after and version <= :until and run not like 'migration-%'
and not exists (select 1 from json_each(:open) o where run = o.value or substr(run, 1, length(o.value) + 1) = o.value || '.')

-- name: forget_runs
-- workflows of which no record is left
delete from retroact_run where state in ('committed', 'aborted') and ended_us <= :until_us
and not exists (select 1 from retroact_record r where r.run = retroact_run.run)

-- name: details
-- what records hold of rows
select version, statements, changes from retroact_record where version > ? and version <= ?

-- name: set_details
-- a record without what it held of one table
update retroact_record set statements = ?, changes = ?, arguments = '{}' where version = ?

-- name: texts_of_table
-- statements that read or write a table
select id from retroact_sql where exists (select 1 from json_each(writes) where value = :name)
or exists (select 1 from json_each(reads) where value like :name || '.%')

-- name: relations_of_table
-- a table as the changes name it, with the tables in which a virtual table keeps its rows
select id from retroact_relation where name = :name
or name in (:name || '_content', :name || '_data', :name || '_idx', :name || '_docsize', :name || '_config')

-- name: weights
-- how many bytes the details of the newest records between two versions take
select count(*), coalesce(sum(length(coalesce(statements, '')) + length(coalesce(changes, '')) + length(arguments)), 0), min(version)
from (select * from retroact_record where version > :after and version <= :until order by version desc limit :sample)

-- name: next_outcome
-- the first record after a version that is not kept in any case
select min(version) from retroact_record where version > ? and run not like 'migration-%'
