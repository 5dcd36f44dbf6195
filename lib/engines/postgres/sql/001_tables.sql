-- What PostgreSQL keeps of locks. All files of this folder work in the schema that comes first in search_path, whatever its
-- name is; they are run once each, in the order of their numbers, and are never changed after they were published.

create table migrations (
  number int primary key,
  applied_at timestamptz not null default now()
);
insert into migrations (number) values (1);

-- One row for each name that was ever held. What has to survive a crash of the server is here.
create table locks (
  -- sha256 of the namespace, a NUL, and the name: a name can be too long for an index.
  key bytea primary key,
  namespace text not null,
  -- UTF-8; or FF and UTF-16LE where the name has no UTF-8, because it has half of a surrogate pair.
  name bytea not null,
  -- Of the last exclusive grant.
  token int8 not null default 0,
  -- Who holds it exclusively: the session, and what that calls its hold. A session that is not alive counts as dead, also when
  -- it was the server that crashed. There is no index of owners, so that a grant touches no index at all.
  owner int8,
  owner_id int8,
  -- The same for people: pid, threadId, since (milliseconds since the epoch).
  holder jsonb,
  -- The exclusive holder that died: as `holder`, and its token.
  abandoned jsonb,
  -- How many flights of the name were finished.
  flights int8 not null default 0,
  -- Whether there may be slots of the name, but for those of who was robbed. Where this is false, there are none: see add_slot.
  may_have_slots boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- One row for each session. It lives for as long as its connection has the advisory lock of its number.
create unlogged table sessions (
  session int8 primary key,
  client_id text not null,
  pid int not null,
  thread_id int not null,
  host text not null,
  since timestamptz not null default now()
);

-- held: is a shared holder. upgrading: the same, and the next exclusive one. waiting: is in the queue. robbed: was a holder, until
-- somebody stole the lock; stays until its session knows.
create type slot_state as enum ('held', 'upgrading', 'waiting', 'robbed');

-- One row for each hold and wait but the exclusive holders. A crash of the server ends all sessions, and empties this.
create unlogged table slots (
  -- The order of the queue.
  number int8 generated always as identity,
  key bytea not null,
  session int8 not null,
  -- As the session calls it. It never calls another one so.
  id int8 not null,
  state slot_state not null,
  -- What is waited for.
  exclusive boolean not null default false,
  -- When it was queued, or granted.
  since timestamptz not null default clock_timestamp(),
  -- Who stole the lock, in words.
  thief text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- What is done often names the columns of one index, and none of the other. So which one is used does not depend on the
-- statistics of a table that is empty now and long soon.
create unique index slots_by_session on slots (session, id);
create index slots_by_queue on slots (key, state, number);

-- One row: when somebody has looked last for sessions that are dead; and since when there are sessions, in microseconds: what was
-- before, a crash of the server may have lost in part.
create unlogged table looks (
  only_row boolean primary key default true check (only_row),
  looked_at timestamptz not null,
  began int8 not null
);
