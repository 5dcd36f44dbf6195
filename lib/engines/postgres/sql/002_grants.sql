-- What the verbs are made of. Whoever changes what is known of a name has its latch: an advisory lock until the end of the
-- transaction. Two names with one latch wait for each other, and no more than that.
--
-- A grant is `{token, abandoned, flights}`. What a session is to be told is a message `{event, id, ..}`: the asking session
-- finds its own in the answer, under `told`; others get them by NOTIFY, which costs all of the server a short lock.

insert into migrations (number) values (2);

create function latch_of(key bytea) returns int8 language sql immutable as $$
  select ('x' || encode(substring(key for 8), 'hex'))::bit(64)::int8
$$;

create function channel_of(session int8) returns text language sql immutable as $$
  select 'proclock_' || to_hex(session)
$$;

create function milliseconds_of(moment timestamptz) returns int8 language sql stable as $$
  select (extract(epoch from moment) * 1000)::int8
$$;

-- The clock in microseconds carries on where a crash has lost the last tokens. A promoted standby may have lost more, and has
-- a clock of its own: each timeline is a minute ahead of the one before.
create function token_after(previous int8) returns int8 language sql volatile as $$
  select greatest(
    previous + 1,
    (extract(epoch from clock_timestamp()) * 1000000)::int8
      + ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 * 60000000
  )
$$;

-- A session can enter its own advisory lock again, which would make it look dead.
create function is_alive(me int8, other int8) returns boolean language plpgsql as $$
begin
  return other = me or not pg_try_advisory_xact_lock_shared(other);
end $$;

create function tell(me int8, other int8, message jsonb) returns jsonb language plpgsql as $$
begin
  if other = me then
    return jsonb_build_array(message);
  end if;
  perform pg_notify(channel_of(other), message::text);
  return '[]';
end $$;

-- The mark of the dead holder; for a lock that has no holder now, as far as slots say.
create function mark_of(lock locks) returns jsonb language sql stable as $$
  select case
    when lock.holder is null then lock.abandoned
    else lock.holder || jsonb_build_object('token', lock.token::text)
  end
$$;

create function is_free(wanted bytea, exclusively boolean) returns boolean language plpgsql as $$
declare
  held_exclusively boolean;
begin
  -- Mostly there is nobody at all.
  perform from slots where key = wanted and state < 'robbed' limit 1;
  if not found then return true; end if;
  perform from slots where key = wanted and state = 'waiting' limit 1;
  if found then return false; end if;
  perform from slots where key = wanted and state = 'upgrading' limit 1;
  if found then return false; end if;
  -- One holder stands for all: they are all shared, or it is alone.
  select exclusive into held_exclusively from slots where key = wanted and state = 'held' limit 1;
  return not found or not (exclusively or held_exclusively);
end $$;

-- Writes down that the lock is held, and returns the grant; null if there is no such lock yet.
create function take(wanted bytea, taker int8, exclusively boolean) returns jsonb language plpgsql as $$
declare
  taken locks;
begin
  if exclusively then
    update locks l
      set token = token_after(l.token),
        abandoned = mark_of(l),
        holder = (
          select jsonb_build_object('pid', s.pid, 'threadId', s.thread_id, 'since', milliseconds_of(clock_timestamp()))
          from sessions s where s.session = taker
        )
      where l.key = wanted
      returning * into taken;
  else
    select * into taken from locks where key = wanted;
    taken.abandoned := mark_of(taken);
  end if;
  if taken.key is null then return null; end if;
  return jsonb_build_object('token', taken.token::text, 'abandoned', taken.abandoned, 'flights', taken.flights);
end $$;

-- Removes what a dead session has of a name.
create function bury(wanted bytea, dead int8) returns void language plpgsql as $$
declare
  held_exclusively boolean;
begin
  with gone as (delete from slots where session = dead and key = wanted returning state, exclusive)
    select bool_or(exclusive and state = 'held') into held_exclusively from gone;
  if held_exclusively then
    update locks l set abandoned = mark_of(l), holder = null where l.key = wanted;
  end if;
end $$;

-- The same for all sessions that are dead. Returns whether there was one.
create function bury_all(me int8, wanted bytea) returns boolean language plpgsql as $$
declare
  other int8;
  any_dead boolean := false;
begin
  for other in select distinct session from slots where key = wanted loop
    if not is_alive(me, other) then
      perform bury(wanted, other);
      any_dead := true;
    end if;
  end loop;
  return any_dead;
end $$;

-- Grants the lock to whom it is free for by now: the upgrading holder, then the queue in its order. Returns what is to be told
-- to the asking session. A waiter that is dead is passed over: had it been granted, it would leave a mark for nothing.
create function grant_next(me int8, wanted bytea) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  next slots;
  held_exclusively boolean;
  granted jsonb;
begin
  -- Mostly nobody waits.
  perform from slots where key = wanted and state between 'upgrading' and 'waiting' limit 1;
  if not found then return told; end if;
  loop
    select * into next from slots where key = wanted and state = 'upgrading' limit 1;
    if not found then exit; end if;
    if is_alive(me, next.session) then
      perform from slots where key = wanted and state = 'held' limit 1;
      if found then return told; end if;
      update slots set state = 'held', exclusive = true, since = clock_timestamp()
        where session = next.session and key = wanted and id = next.id;
      granted := take(wanted, next.session, true);
      return told || tell(me, next.session, granted || jsonb_build_object('event', 'granted', 'id', next.id));
    end if;
    perform bury(wanted, next.session);
  end loop;
  loop
    select * into next from slots where key = wanted and state = 'waiting' order by number limit 1;
    if not found then return told; end if;
    if not is_alive(me, next.session) then
      perform bury(wanted, next.session);
      continue;
    end if;
    select exclusive into held_exclusively from slots where key = wanted and state = 'held' limit 1;
    if found and (held_exclusively or next.exclusive) then return told; end if;
    update slots set state = 'held', since = clock_timestamp()
      where session = next.session and key = wanted and id = next.id;
    granted := take(wanted, next.session, next.exclusive);
    told := told || tell(me, next.session, granted || jsonb_build_object('event', 'granted', 'id', next.id));
    if next.exclusive then return told; end if;
  end loop;
end $$;

-- Takes the lock from all its holders.
create function rob(me int8, wanted bytea) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  by_whom text;
  victim slots;
begin
  -- The mark of one that is dead must not get lost.
  perform bury_all(me, wanted);
  select format('pid %s thread %s of %s', pid, thread_id, host) into by_whom from sessions where session = me;
  for victim in
    update slots set state = 'robbed', thief = by_whom
      where key = wanted and state in ('held', 'upgrading')
      returning *
  loop
    told := told || tell(me, victim.session, robbery(victim));
    if victim.exclusive then
      update locks set holder = null where key = wanted;
    end if;
  end loop;
  return told;
end $$;

create function robbery(victim slots) returns jsonb language sql immutable as $$
  select jsonb_build_object('event', 'robbed', 'id', victim.id, 'thief', victim.thief)
$$;
