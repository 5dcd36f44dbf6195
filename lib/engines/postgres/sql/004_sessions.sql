-- How a session begins, shows that it lives, looks for those that do not, and ends.

insert into migrations (number) values (4);

-- What this role would have to be granted; null if nothing.
create function missing_rights() returns text language sql stable as $$
  select string_agg(distinct lower(needed), ', ')
  from unnest(array['locks', 'sessions', 'slots', 'looks']) as relation,
    unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as needed
  where not has_table_privilege(relation::regclass, needed)
$$;

-- The advisory lock is that of the connection, and is there before anybody can see the session.
create function enter(me int8, id_of_client text, pid int, thread_id int, host text) returns jsonb language plpgsql as $$
declare
  missing text := missing_rights();
begin
  if missing is not null then
    return jsonb_build_object('missing', missing, 'told', '[]'::jsonb);
  end if;
  if not pg_try_advisory_lock(me) then
    raise exception 'the number of the session is in use';
  end if;
  insert into sessions (session, client_id, pid, thread_id, host) values (me, id_of_client, pid, thread_id, host);
  perform set_config('proclock.timeline_us', timeline_us()::text, false);
  insert into looks (looked_at, began) values ('-infinity', clock_us()) on conflict do nothing;
  perform set_config('proclock.first_token', (began + timeline_us())::text, false) from looks;
  execute format('listen %I', channel_of(me));
  return jsonb_build_object('told', '[]'::jsonb);
end $$;

-- What a session owns, and its slots: as many of their names as one transaction may have latches. Where it is empty, it stays so:
-- a dead session asks for nothing, others grant it what it has a slot for, and one statement sees either the slot or what
-- came of it. With two statements, a grant could be committed between them, and be seen by none.
create function names_of(ending int8) returns bytea[] language sql stable as $$
  select coalesce(array_agg(key), '{}') from (
    (select key from locks where owner = ending limit 100)
    union
    (select key from slots where session = ending order by id limit 100)
  ) as named
$$;

-- The server ends a session that it does not hear of. `known` is false if somebody has removed it by hand: then what it holds is
-- given up, because nobody else would find it; `more` says that there is another step.
create function beat(me int8) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  names bytea[] := '{}';
  is_known boolean := exists (select from sessions where session = me);
begin
  if not is_known then
    names := names_of(me);
    told := empty_session(me, me, true, names);
  end if;
  return jsonb_build_object('told', told, 'known', is_known, 'more', names <> '{}');
end $$;

-- Ends what a session has of those names. Their latches are taken in their order, because whoever takes several could otherwise
-- wait for another one in a circle.
create function empty_session(me int8, ending int8, died boolean, names bytea[]) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  wanted bytea;
begin
  for wanted in select key from unnest(names) as named (key) order by latch_of(key), key loop
    perform pg_advisory_xact_lock(latch_of(wanted));
    -- By the key: a session may have thousands of slots of other names.
    delete from slots where key = wanted and (session = ending) is true;
    perform from locks where key = wanted and owner = ending;
    if found and died then
      perform bury_owner(wanted);
    elsif found then
      update locks set owner = null, owner_id = null, holder = null where key = wanted;
    end if;
    told := told || grant_next(me, wanted, ending);
  end loop;
  return told;
end $$;

-- Looks for a session that is dead, and ends it. `more` says that another look should follow at once. However many sessions
-- wait, one of them looks at a time, and for all.
--
-- Mostly nobody is dead, which is all that is asked. They are counted some at a time, because each takes a lock of the server until
-- the end of the transaction, and there are not many. One that others wait for comes first, with what they wait for; for all the
-- rest there is one walk through the locks.
--
-- Somebody who saw the dead one alive may be about to wait for it, and not be seen yet. So its row, by which it is found, stays
-- until it has nothing any more, whether somebody waits for that or not.
create function look(me int8) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  dead int8;
  names bytea[];
  others int8[];
  holding int8[];
begin
  perform from looks
    where not looked_at between clock_timestamp() - interval '150 milliseconds' and clock_timestamp()
    for update skip locked;
  if not found then
    return jsonb_build_object('told', told, 'more', false);
  end if;
  others := array(select session from sessions where session <> me and pg_try_advisory_xact_lock_shared(session) limit 100);
  if others = '{}' then
    update looks set looked_at = clock_timestamp();
    return jsonb_build_object('told', told, 'more', false);
  end if;
  with waited as materialized (
    select distinct key from slots where state between 'upgrading' and 'waiting'
  ), involved as materialized (
    select l.owner as session, key from waited join locks l using (key) where l.owner <> me
    union all
    select s.session, key from waited join slots s using (key) where s.state between 'held' and 'upgrading' and s.session <> me
  ), of_each as materialized (
    select session, (array_agg(distinct key))[1:100] as keys from involved group by session
  )
  select session, keys into dead, names from of_each where pg_try_advisory_xact_lock_shared(session) limit 1;
  if dead is null then
    -- In one statement: see names_of.
    holding := array(select owner from locks where owner = any (others) union select session from slots where session = any (others));
    delete from sessions where session = any (others) and session <> all (holding);
    dead := holding[1];
    names := names_of(dead);
  end if;
  if dead is not null then
    told := empty_session(me, dead, true, names);
  end if;
  update looks set looked_at = '-infinity';
  return jsonb_build_object('told', told, 'more', true);
end $$;

-- Ends the asking session, in steps: what it holds is released. `more` says that there is another step.
create function leave(me int8) returns jsonb language plpgsql as $$
declare
  names bytea[] := names_of(me);
begin
  perform empty_session(me, me, false, names);
  if names = '{}' then
    delete from sessions where session = me;
  end if;
  return jsonb_build_object('told', '[]'::jsonb, 'more', names <> '{}');
end $$;

-- For those who take locks of ever new names: forgets names that nobody has or marks, and that were not taken exclusively for
-- so long. Returns how many.
create function prune(older interval) returns int8 language plpgsql set search_path from current as $$
declare
  limit_token int8 := clock_us() + timeline_us() - (extract(epoch from older) * 1000000)::int8;
  wanted bytea;
  pruned int8 := 0;
begin
  -- In others a slot that somebody has got meanwhile is not seen.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'names are pruned by a transaction that is read committed: set transaction isolation level read committed';
  end if;
  for wanted in
    select key from locks where token < limit_token and owner is null and abandoned is null limit 1000
  loop
    -- Several latches out of their order: none of them may be waited for.
    if pg_try_advisory_xact_lock(latch_of(wanted)) then
      delete from locks l where l.key = wanted and l.token < limit_token and l.owner is null and l.abandoned is null
        and not exists (select from slots where slots.key = l.key);
      if found then pruned := pruned + 1; end if;
    end if;
  end loop;
  return pruned;
end $$;
