-- The page log: a SQLite file of its own, beside the database, named <database>-pages. Every past state of the database is the
-- base (what stood in the main file when logging began) with the page versions of the commits since laid over it.

-- One row about the log as a whole.
--   base                   number of the first commit that can be travelled to: the state in which logging began, or the horizon
--   reason                 why there is nothing before the base, in a sentence for humans
--   salt_1, salt_2, frames how far the write-ahead log of the database has been taken over: its generation, its frames
--   main_size, main_mtime  the main file (bytes; ns) when it was last known that nobody could have changed it since; else null
--   unsettled              first commit whose version is not known yet (taken over after a crash), else null
create table pagelog_meta (
    one integer primary key check (one = 1),
    format integer not null,
    page_size integer not null,
    base integer,
    reason text not null,
    salt_1 integer not null,
    salt_2 integer not null,
    frames integer not null,
    main_size integer,
    main_mtime integer,
    unsettled integer
);

-- One row per commit of the database, numbered without holes from the base.
--   version       the last version of the trace that the state after this commit contains
--   pages         the size of the database after it, in pages
--   persisted_us  when it was known to be durable, in microseconds since 1970
--   changed       how many page versions the log holds of it
--   crc           over all of the row
create table pagelog_commit (
    n integer primary key,
    version integer not null,
    pages integer not null,
    persisted_us integer not null,
    changed integer not null,
    crc integer not null
);

-- One row per page and run of its versions, at commits `first` to `last`.
--   place  page * 2^32 + first: as one number it needs no index, and a large chunk no overflow page
--   kind   1: begins with the whole image of the page as of `first`; 0: continues from the chunk before; 2: dropped by compaction,
--          all but its crc
--   crc    over all of the row, seeded with the crc of the page's chunk before, so that a missing chunk shows
--   data   raw deflate; see pagelog.py for what is in it
create table pagelog_chunk (
    place integer primary key,
    last integer not null,
    kind integer not null,
    crc integer not null,
    data blob not null
);
