-- The verbs of a session: one call, one round trip, one transaction each. `me` is the session that asks, `wanted` the key of
-- the lock, `slot_id` what the session calls its hold or wait.

insert into migrations (number) values (3);

-- The grant of a shared holder, where nobody is known to hold the lock exclusively or to wait for it. Others may share it.
create function share_if_free(wanted bytea, taker int8, taker_id int8) returns jsonb language plpgsql as $$
declare
  granted jsonb;
begin
  select grant_of(token, abandoned, flights) into granted from locks
    where key = wanted and owner is null and token >= first_token()
      and not exists (select from slots where slots.key = wanted and state between 'upgrading' and 'waiting');
  if granted is not null then
    perform add_slot(wanted, taker, taker_id, 'held');
  end if;
  return granted;
end $$;

-- how: wait, try or steal.
create function acquire(
  me int8, slot_id int8, wanted bytea, of_namespace text, lock_name bytea, exclusively boolean, how text
) returns jsonb language plpgsql as $$
declare
  told jsonb := '[]';
  granted jsonb;
  is_busy boolean;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  -- Mostly the lock is free, and this is all there is to do.
  if exclusively then
    granted := own(wanted, me, slot_id, if_alone => true);
    if granted is null and finds_no_slots(wanted) then
      granted := own(wanted, me, slot_id);
    end if;
  else
    granted := share_if_free(wanted, me, slot_id);
  end if;
  if granted is not null then
    return jsonb_build_object('state', 'granted', 'told', told, 'grant', granted);
  end if;
  -- The name may have been there before, and was pruned: no token of that time is greater than the clock. Or somebody has removed
  -- its row by hand, and there are slots.
  insert into locks (key, namespace, name, token, may_have_slots)
    select wanted, of_namespace, lock_name, token_after(0), exists (select from slots where slots.key = wanted)
    where not exists (select from locks where key = wanted);
  if how = 'steal' then
    told := rob(me, wanted);
  else
    is_busy := is_owned(me, wanted);
    if not is_busy then
      told := grant_unowned(me, wanted);
      is_busy := not is_free(wanted, exclusively);
    end if;
    -- Those who wait look for the dead; this one does not stay for that.
    if is_busy and how = 'try' and bury_all(me, wanted) then
      told := told || grant_next(me, wanted);
      is_busy := not is_free(wanted, exclusively);
    end if;
    if is_busy then
      return refuse_or_queue(me, slot_id, wanted, exclusively, how) || jsonb_build_object('told', told);
    end if;
  end if;
  if exclusively then
    return jsonb_build_object('state', 'granted', 'told', told, 'grant', own(wanted, me, slot_id));
  end if;
  perform add_slot(wanted, me, slot_id, 'held');
  return jsonb_build_object('state', 'granted', 'told', told, 'grant', shared_grant(wanted));
end $$;

create function refuse_or_queue(me int8, slot_id int8, wanted bytea, exclusively boolean, how text)
returns jsonb language plpgsql as $$
begin
  if how = 'try' then return '{"state": "refused"}'; end if;
  perform add_slot(wanted, me, slot_id, 'waiting', exclusively);
  return jsonb_build_object('state', 'queued', 'flights', (select flights from locks where key = wanted));
end $$;

-- Ends a wait, or takes an upgrade back. `grant` is there where it had been granted before.
create function withdraw(me int8, slot_id int8, wanted bytea) returns jsonb language plpgsql as $$
declare
  slot slots;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  select * into slot from slots where session = me and id = slot_id;
  if slot.state = 'held' or exists (select from locks where key = wanted and owner = me and owner_id = slot_id) then
    return jsonb_build_object('told', '[]'::jsonb, 'grant', shared_grant(wanted));
  end if;
  if slot.state = 'upgrading' then
    update slots set state = 'held' where session = me and id = slot_id;
  else
    delete from slots where session = me and id = slot_id;
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
  has_next boolean;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  update locks
    set owner = null, owner_id = null, holder = null,
      abandoned = case when repaired then null else abandoned end,
      flights = flights + flight::int
    where key = wanted and owner = me and owner_id = slot_id
    returning may_have_slots into has_next;
  if has_next then
    has_next := has_waiters(wanted);
  elsif not found then
    delete from slots where session = me and id = slot_id returning * into slot;
    if slot.state is null or slot.state = 'robbed' then
      return jsonb_build_object('known', false, 'told', case when slot.state is null then '[]' else jsonb_build_array(robbery(slot)) end);
    end if;
    if flight then
      update locks set flights = flights + 1 where key = wanted;
    end if;
    has_next := has_waiters(wanted);
  end if;
  return jsonb_build_object('known', true, 'told', case when has_next then grant_next(me, wanted) else '[]' end);
end $$;

create function downgrade(me int8, slot_id int8, wanted bytea, repaired boolean) returns jsonb language plpgsql as $$
declare
  slot slots;
begin
  perform pg_advisory_xact_lock(latch_of(wanted));
  update locks set owner = null, owner_id = null, holder = null,
      abandoned = case when repaired then null else abandoned end
    where key = wanted and owner = me and owner_id = slot_id;
  if found then
    perform add_slot(wanted, me, slot_id, 'held');
    return jsonb_build_object('known', true, 'told', grant_next(me, wanted));
  end if;
  select * into slot from slots where session = me and id = slot_id;
  if slot.state = 'robbed' then
    delete from slots where session = me and id = slot_id;
    return jsonb_build_object('known', false, 'told', jsonb_build_array(robbery(slot)));
  end if;
  return jsonb_build_object('known', slot.state in ('held', 'upgrading'), 'told', '[]'::jsonb);
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
    select * into slot from slots where session = me and id = slot_id;
    if slot.state = 'robbed' then
      delete from slots where session = me and id = slot_id;
      return jsonb_build_object('state', 'refused', 'told', told || robbery(slot));
    end if;
    if slot.state is distinct from 'held' then
      return jsonb_build_object('state', 'refused', 'told', told);
    end if;
    alone := not exists (
      select from slots where key = wanted and state in ('held', 'upgrading') and number <> slot.number
    );
    -- Another one that is in the way may be dead.
    exit when alone or again or not bury_all(me, wanted);
    told := grant_next(me, wanted);
    again := true;
  end loop;
  if alone then
    delete from slots where session = me and id = slot_id;
    return jsonb_build_object('state', 'granted', 'told', told, 'grant', own(wanted, me, slot_id));
  end if;
  perform from slots where key = wanted and state = 'upgrading' limit 1;
  if found or how = 'try' then
    return jsonb_build_object('state', 'refused', 'told', told);
  end if;
  update slots set state = 'upgrading' where session = me and id = slot_id;
  return jsonb_build_object(
    'state', 'queued', 'told', told, 'flights', (select l.flights from locks l where l.key = wanted)
  );
end $$;

-- Of one name, or with null of all of the namespace: holders and waiters whose sessions are alive.
create function query(me int8, of_namespace text, wanted bytea) returns jsonb language sql as $$
  with lock as materialized (
    select * from locks where wanted is not null and key = wanted
    union all
    select * from locks where wanted is null and namespace = of_namespace
  ), seen as materialized (
    select 0 as number, name, owner as session, true as held, true as exclusive, (holder ->> 'since')::int8 as since
    from lock where owner is not null
    union all
    select s.number, l.name, s.session, s.state <> 'waiting', s.exclusive, milliseconds_of(s.since)
    from lock l join slots s using (key) where s.state <> 'robbed'
  ), alive as materialized (
    select * from sessions where session in (select session from seen) and is_alive(me, session)
  )
  select jsonb_build_object('told', '[]'::jsonb, 'slots', coalesce(jsonb_agg(
    jsonb_build_object(
      'name', encode(seen.name, 'hex'), 'held', seen.held, 'exclusive', seen.exclusive, 'since', seen.since,
      'clientId', alive.client_id, 'pid', alive.pid, 'threadId', alive.thread_id, 'host', alive.host
    ) order by seen.number
  ), '[]'))
  from seen join alive using (session)
$$;

-- The marks of the dead, of all names of the namespace: also of owners that nobody has buried yet.
create function marks(me int8, of_namespace text) returns jsonb language sql as $$
  with lock as materialized (
    select name, abandoned, owner, holder || jsonb_build_object('token', token::text) as left_by from locks
    where namespace = of_namespace and (owner is not null or abandoned is not null)
  ), dead as materialized (
    select owner from (select distinct owner from lock where owner is not null) as owners where not is_alive(me, owner)
  ), seen as materialized (
    select name, case when owner in (select owner from dead) then coalesce(left_by, abandoned) else abandoned end as abandoned
    from lock
  )
  select jsonb_build_object('told', '[]'::jsonb, 'marks', coalesce(jsonb_agg(
    jsonb_build_object('name', encode(name, 'hex'), 'abandoned', abandoned)
  ), '[]'))
  from seen where abandoned is not null
$$;
