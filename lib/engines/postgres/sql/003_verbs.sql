-- The verbs of a session: one call, one round trip, one transaction each. `me` is the session that asks, `wanted` the key of
-- the lock, `slot_id` what the session calls its hold or wait.

insert into migrations (number) values (3);

-- how: wait, try or steal.
create function acquire(
  me int8, slot_id int8, wanted bytea, of_namespace text, lock_name bytea, exclusively boolean, how text
) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  free boolean := true;
  granted jsonb;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  if how = 'steal' then
    told := rob(me, wanted);
  else
    free := is_free(wanted, exclusively);
  end if;
  -- Those who wait look for the dead; this one does not stay for that.
  if not free and how = 'try' and bury_all(me, wanted) then
    told := grant_next(me, wanted);
    free := is_free(wanted, exclusively);
  end if;
  if not free and how = 'try' then
    return jsonb_build_object('state', 'refused', 'told', told);
  end if;
  insert into slots (key, session, id, state, exclusive)
    values (wanted, me, slot_id, case when free then 'held' else 'waiting' end::slot_state, exclusively);
  if not free then
    return jsonb_build_object(
      'state', 'queued', 'told', told, 'flights', (select l.flights from locks l where l.key = wanted)
    );
  end if;
  granted := take(wanted, me, exclusively);
  if granted is null then
    insert into locks (key, namespace, name) values (wanted, of_namespace, lock_name);
    granted := take(wanted, me, exclusively);
  end if;
  return jsonb_build_object('state', 'granted', 'told', told, 'grant', granted);
end $$;

-- Ends a wait, or takes an upgrade back. `grant` is there where it had been granted before.
create function withdraw(me int8, slot_id int8, wanted bytea) returns jsonb language plpgsql as $$
declare
  slot slots;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  select * into slot from slots where session = me and key = wanted and id = slot_id;
  if slot.state = 'held' then
    return jsonb_build_object('told', '[]'::jsonb, 'grant', (
      select jsonb_build_object(
        'token', l.token::text,
        'abandoned', case when slot.exclusive then l.abandoned else mark_of(l) end,
        'flights', l.flights
      ) from locks l where l.key = wanted
    ));
  end if;
  if slot.state = 'upgrading' then
    update slots set state = 'held' where session = me and key = wanted and id = slot_id;
  elsif slot.state in ('waiting', 'robbed') then
    delete from slots where session = me and key = wanted and id = slot_id;
  end if;
  if slot.state = 'robbed' then
    return jsonb_build_object('told', jsonb_build_array(robbery(slot)));
  end if;
  return jsonb_build_object('told', grant_next(me, wanted));
end $$;

create function release(me int8, slot_id int8, wanted bytea, repaired boolean, flight boolean)
returns jsonb language plpgsql as $$
declare
  slot slots;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  delete from slots where session = me and key = wanted and id = slot_id returning * into slot;
  if slot.state is null then
    return jsonb_build_object('known', false, 'told', '[]'::jsonb);
  end if;
  if slot.state = 'robbed' then
    return jsonb_build_object('known', false, 'told', jsonb_build_array(robbery(slot)));
  end if;
  if (slot.exclusive and slot.state = 'held') or repaired or flight then
    update locks
      set holder = case when slot.exclusive then null else holder end,
        abandoned = case when repaired then null else abandoned end,
        flights = flights + flight::int
      where key = wanted;
  end if;
  return jsonb_build_object('known', true, 'told', grant_next(me, wanted));
end $$;

create function downgrade(me int8, slot_id int8, wanted bytea) returns jsonb language plpgsql as $$
declare
  slot slots;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  select * into slot from slots where session = me and key = wanted and id = slot_id;
  if slot.state is null or slot.state = 'waiting' then
    return jsonb_build_object('known', false, 'told', '[]'::jsonb);
  end if;
  if slot.state = 'robbed' then
    delete from slots where session = me and key = wanted and id = slot_id;
    return jsonb_build_object('known', false, 'told', jsonb_build_array(robbery(slot)));
  end if;
  if slot.exclusive then
    update slots set exclusive = false where session = me and key = wanted and id = slot_id;
    -- What was torn is repaired, or this holder would not let others see it.
    update locks set holder = null, abandoned = null where key = wanted;
  end if;
  return jsonb_build_object('known', true, 'told', grant_next(me, wanted));
end $$;

-- how: wait or try.
create function upgrade(me int8, slot_id int8, wanted bytea, how text) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  slot slots;
  alone boolean;
  again boolean := false;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  loop
    select * into slot from slots where session = me and key = wanted and id = slot_id;
    if slot.state = 'robbed' then
      delete from slots where session = me and key = wanted and id = slot_id;
      return jsonb_build_object('state', 'refused', 'told', told || robbery(slot));
    end if;
    if slot.state is distinct from 'held' then
      return jsonb_build_object('state', 'refused', 'told', told);
    end if;
    alone := not exists (
      select from slots where key = wanted and (state = 'upgrading' or (state = 'held' and number <> slot.number))
    );
    -- Another one that is in the way may be dead.
    exit when alone or again or not bury_all(me, wanted);
    told := grant_next(me, wanted);
    again := true;
  end loop;
  if alone then
    update slots set exclusive = true, since = clock_timestamp() where session = me and key = wanted and id = slot_id;
    return jsonb_build_object('state', 'granted', 'told', told, 'grant', take(wanted, me, true));
  end if;
  perform from slots where key = wanted and state = 'upgrading' limit 1;
  if found or how = 'try' then
    return jsonb_build_object('state', 'refused', 'told', told);
  end if;
  update slots set state = 'upgrading' where session = me and key = wanted and id = slot_id;
  return jsonb_build_object(
    'state', 'queued', 'told', told, 'flights', (select l.flights from locks l where l.key = wanted)
  );
end $$;

-- Of one name, or with null of all of the namespace: holders and waiters whose sessions are alive.
create function query(me int8, of_namespace text, wanted bytea) returns jsonb language sql as $$
  with seen as materialized (
    select * from slots where wanted is not null and key = wanted
    union all
    select s.* from locks l join slots s using (key) where wanted is null and l.namespace = of_namespace
  ), alive as materialized (
    select * from sessions where session in (select session from seen) and is_alive(me, session)
  )
  select jsonb_build_object('told', '[]'::jsonb, 'slots', coalesce(jsonb_agg(
    jsonb_build_object(
      'name', encode((select l.name from locks l where l.key = seen.key), 'hex'),
      'held', seen.state <> 'waiting', 'exclusive', seen.exclusive, 'since', milliseconds_of(seen.since),
      'clientId', alive.client_id, 'pid', alive.pid, 'threadId', alive.thread_id, 'host', alive.host
    ) order by seen.number
  ), '[]'))
  from seen join alive using (session)
  where seen.state <> 'robbed'
$$;
