-- What the verbs are made of, and why that is right.
--
-- A lock is held by the owner in its row, or by the slots that are 'held' or 'upgrading', and never by both: whoever becomes
-- the owner found neither (own), and whoever becomes a slot found no owner (share_if_free, grant_next), under the
-- latch. The latch of a name is an advisory lock until the end of the transaction. Each verb takes it in a statement of its own,
-- first: the snapshot of every statement behind it has all that was committed by those that had it before. Two names with one
-- latch wait for each other, and no more than that.
--
-- A session is alive for as long as its connection has the advisory lock of its number (is_alive). One that is dead is passed
-- over wherever it is met, under the latch: as the owner (is_owned), in the queue (grant_next), among all of a name (bury_all).
-- A crash of the server empties the slots and ends all sessions; an owner that is left in a row is dead then like any other. So
-- an exclusive holder that dies, in whatever way, is found by whoever comes next, who is told. Those who wait already look
-- several times a second for sessions that are dead, and free what they wait for (look).
--
-- The queue is strict: nobody is granted past a waiter (has_waiters) but the holder that is upgrading, which is ahead of all.
-- Whoever lets go, leaves the queue, or buries somebody, grants the next ones in the same transaction: there is no moment in which
-- a lock is free, somebody waits, and nobody is about to look.
--
-- A grant is `{token, abandoned, flights}`. What a session is to be told is a message `{event, id, ..}`: the asking session
-- finds its own in the answer, under `told`; others get them by NOTIFY, which costs all of the server a short lock.
--
-- Of a call's time most goes into statements. Functions in SQL are part of the statement that they stand in only if they have no
-- FROM, and promise no more (`stable`, `immutable`) than what they call keeps; otherwise each call is as dear as a statement.

insert into migrations (number) values (2);

create function latch_of(key bytea) returns int8 language sql immutable as $$
  select ('x' || encode(substring(key for 8), 'hex'))::bit(64)::int8
$$;

create function channel_of(session int8) returns text language sql immutable as $$
  select 'proclock_' || to_hex(session)
$$;

-- date_part counts in float8, which is as exact as the clock; extract counts in numeric, and takes ten times as long.
create function milliseconds_of(moment timestamptz) returns int8 language sql stable as $$
  select (date_part('epoch', moment) * 1000)::int8
$$;

create function clock_us() returns int8 language sql volatile as $$
  select (date_part('epoch', clock_timestamp()) * 1000000)::int8
$$;

-- A promoted standby has a clock of its own, and may not have heard of the last tokens: each timeline is a minute ahead of the
-- one before. It does not change while a session lasts, which asks once: see enter.
create function timeline_us() returns int8 language sql volatile as $$
  select ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 * 60000000
$$;

-- The clock in microseconds carries on where a crash has lost the last tokens.
create function token_after(previous int8) returns int8 language sql volatile as $$
  select greatest(previous + 1, clock_us() + current_setting('proclock.timeline_us')::int8)
$$;

-- A session can enter its own advisory lock again, which would make it look dead.
create function is_alive(me int8, other int8) returns boolean language plpgsql as $$
begin
  return other = me or not pg_try_advisory_xact_lock_shared(other);
end $$;

-- Makes a holder or waiter known, under the latch. There is no other way to become one that has a slot. So where the row of a name
-- says that there are no slots, there are none but of those who were robbed; whoever finds none may have the row say so (finds_no_slots).
-- A crash empties the slots, so that the row is right after that as well.
create function add_slot(wanted bytea, of_session int8, slot_id int8, first_state slot_state, exclusively boolean default false)
returns void language plpgsql as $$
begin
  update locks l set may_have_slots = true where l.key = wanted and not l.may_have_slots;
  insert into slots (key, session, id, state, exclusive) values (wanted, of_session, slot_id, first_state, exclusively);
end $$;

create function tell(me int8, other int8, message jsonb) returns jsonb language plpgsql as $$
begin
  if other = me then
    return jsonb_build_array(message);
  end if;
  perform pg_notify(channel_of(other), message::text);
  return '[]';
end $$;

-- Gives the lock to an exclusive holder, and returns the grant. Nobody holds it, and it is known: or, with `if_alone`, only where
-- the row of the name says that it has no owner and no slots, whose table is not opened then.
create function own(wanted bytea, taker int8, taker_id int8, if_alone boolean default false) returns jsonb language plpgsql as $$
declare
  granted jsonb;
begin
  update locks l
    set token = token_after(l.token), owner = taker, owner_id = taker_id, holder = (
        select jsonb_build_object('pid', pid, 'threadId', thread_id, 'since', milliseconds_of(clock_timestamp()))
        from sessions where session = taker
      )
    where l.key = wanted and (not if_alone or l.owner is null and not l.may_have_slots)
    returning grant_of(l.token, l.abandoned, l.flights) into granted;
  return granted;
end $$;

-- Whether a name that has no owner has no holders or waiters either, though its row did not say so. From now on it does.
create function finds_no_slots(wanted bytea) returns boolean language plpgsql as $$
begin
  update locks l set may_have_slots = false
    where l.key = wanted and l.owner is null and l.may_have_slots
      and not exists (select from slots where slots.key = wanted and state < 'robbed');
  return found;
end $$;

create function grant_of(token int8, abandoned jsonb, flights int8) returns jsonb language sql stable as $$
  select jsonb_build_object('token', token::text, 'abandoned', abandoned, 'flights', flights)
$$;

-- No token that was given before a crash of the server, and was lost in it, is greater. A name that has an older token goes on from
-- here: a shared holder must not be told a smaller one than an exclusive holder before it.
create function first_token() returns int8 language sql stable as $$
  select current_setting('proclock.first_token')::int8
$$;

-- What a shared holder is told.
create function shared_grant(wanted bytea) returns jsonb language plpgsql as $$
begin
  update locks set token = first_token() where key = wanted and token < first_token();
  return (select grant_of(token, abandoned, flights) from locks where key = wanted);
end $$;

-- Whether somebody holds the lock exclusively. One that is dead does no more: its mark stays. Whoever finds that nobody does grants
-- the next ones, since they may have waited for that one: once it is buried, no look finds them (grant_next, acquire).
create function is_owned(me int8, wanted bytea) returns boolean language plpgsql as $$
declare
  by_whom int8;
begin
  select owner into by_whom from locks where key = wanted;
  if by_whom is null then return false; end if;
  if is_alive(me, by_whom) then return true; end if;
  perform bury_owner(wanted);
  return false;
end $$;

create function bury_owner(wanted bytea) returns void language plpgsql as $$
begin
  update locks l
    set abandoned = coalesce(l.holder || jsonb_build_object('token', l.token::text), l.abandoned),
      owner = null, owner_id = null, holder = null
    where l.key = wanted;
end $$;

-- Removes those who are dead from all that is known of a name. Returns whether there was one.
create function bury_all(me int8, wanted bytea) returns boolean language plpgsql as $$
declare
  other int8;
  any_dead boolean;
begin
  any_dead := (select owner is not null from locks where key = wanted) and not is_owned(me, wanted);
  for other in select distinct session from slots where key = wanted loop
    if not is_alive(me, other) then
      delete from slots where key = wanted and session = other;
      any_dead := true;
    end if;
  end loop;
  return any_dead;
end $$;

-- For a lock whose owner, if it has one, is alive.
create function is_free(wanted bytea, exclusively boolean) returns boolean language plpgsql as $$
begin
  perform from locks where key = wanted and owner is not null;
  if found or has_waiters(wanted) then return false; end if;
  return not (exclusively and exists (select from slots where key = wanted and state = 'held'));
end $$;

-- An upgrading holder is one.
create function has_waiters(wanted bytea) returns boolean language plpgsql as $$
begin
  perform from slots where key = wanted and state between 'upgrading' and 'waiting' limit 1;
  return found;
end $$;

-- Grants the lock to whom it is free for by now: the upgrading holder, then the queue in its order. Returns what is to be told
-- to the asking session.
create function grant_next(me int8, wanted bytea, gone int8 default null) returns jsonb language plpgsql as $$
begin
  if is_owned(me, wanted) then return '[]'; end if;
  return grant_unowned(me, wanted, gone);
end $$;

-- The same where nobody owns it. A waiter that is dead, or of the session that is `gone`, is passed over: had it been granted, it
-- would leave a mark for nothing.
--
-- There may be thousands of them. Rows that this transaction has changed are met again by each look at the front of the queue. So
-- all readers before the next writer are granted by one statement, and a session that is dead leaves with all its waiters.
create function grant_unowned(me int8, wanted bytea, gone int8 default null) returns jsonb language plpgsql as $$
declare
  told jsonb[] := '{}';
  granted jsonb;
  front slots;
  next slots;
  other int8;
  next_writer int8;
begin
  loop
    select * into front from slots where key = wanted and state = 'upgrading' limit 1;
    if not found then
      select * into front from slots where key = wanted and state = 'waiting' order by number limit 1;
      exit when not found;
    end if;
    if front.session = gone or not is_alive(me, front.session) then
      perform drop_waiters(wanted, front.session);
      continue;
    end if;
    if front.exclusive or front.state = 'upgrading' then
      perform from slots where key = wanted and state = 'held' limit 1;
      exit when found;
      delete from slots where session = front.session and id = front.id;
      granted := own(wanted, front.session, front.id);
      return to_jsonb(told) || tell(me, front.session, grant_message(granted, front.id));
    end if;
    select number into next_writer from slots
      where key = wanted and state = 'waiting' and exclusive order by number limit 1;
    next_writer := coalesce(next_writer, 9223372036854775807);
    for other in
      select distinct session from slots
        where key = wanted and state = 'waiting' and number < next_writer and session <> front.session
    loop
      if other = gone or not is_alive(me, other) then
        perform drop_waiters(wanted, other);
      end if;
    end loop;
    granted := shared_grant(wanted);
    for next in
      with readers as (
        update slots set state = 'held', since = clock_timestamp()
          where key = wanted and state = 'waiting' and number < next_writer
          returning *
      )
      select * from readers order by number
    loop
      -- Not by tell(): to append one element to an array is the only way that does not copy all of it.
      if next.session = me then
        told := array_append(told, grant_message(granted, next.id));
      else
        perform pg_notify(channel_of(next.session), grant_message(granted, next.id)::text);
      end if;
    end loop;
  end loop;
  return to_jsonb(told);
end $$;

create function grant_message(granted jsonb, slot_id int8) returns jsonb language sql immutable as $$
  select granted || jsonb_build_object('event', 'granted', 'id', slot_id)
$$;

create function drop_waiters(wanted bytea, dead int8) returns void language sql as $$
  delete from slots where key = wanted and state between 'upgrading' and 'waiting' and session = dead
$$;

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
  insert into slots (key, session, id, state) select key, owner, owner_id, 'held' from locks where key = wanted and owner is not null;
  if found then
    update locks set owner = null, owner_id = null, holder = null where key = wanted;
  end if;
  for victim in
    update slots set state = 'robbed', thief = by_whom
      where key = wanted and state in ('held', 'upgrading')
      returning *
  loop
    told := told || tell(me, victim.session, robbery(victim));
  end loop;
  return told;
end $$;

create function robbery(victim slots) returns jsonb language sql stable as $$
  select jsonb_build_object('event', 'robbed', 'id', victim.id, 'thief', victim.thief)
$$;
