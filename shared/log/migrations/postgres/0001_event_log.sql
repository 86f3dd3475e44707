-- The event log.
--
-- Applications write into everpoll.events. An event is given its id, its place in the log, at COMMIT: a deferred
-- trigger takes one lock for the rest of the commit and appends to everpoll.positions. So ids ascend in commit order,
-- and a reader that has seen id 434 has seen everything up to 434. With the usual way, an id from a sequence at
-- INSERT, the transaction with the lower id may commit later, and readers have gone past it by then.
--
-- The comment above a column or an index says what fails without it. Only ASCII here, since this text must also reach a
-- server that then refuses it for its encoding.

do $$
begin
  -- Limits are in bytes of UTF-8, and JSON on the wire is made of it.
  if getdatabaseencoding() <> 'UTF8' then
    raise exception 'the database has the encoding %, the event log needs UTF8; create it with: create database NAME encoding ''UTF8'' template template0', getdatabaseencoding();
  end if;
end
$$;

create table everpoll.events (
  -- Where the position finds its event. Not the id: it is given at INSERT, in no order that a reader could use.
  row bigint generated always as identity primary key,
  -- Whom it is for: without it, every subscriber would get everything. In the "C" collation: an index in a language's
  -- order is silently wrong after an upgrade of the C library.
  channel text collate "C" not null,
  -- What happened, so that a page can choose a handler without looking into the data.
  type text not null,
  -- json and not jsonb: subscribers get the text as it was published, and nothing is parsed twice.
  data json not null,
  -- Publishing again after an unclear answer would make a second event without it.
  key text collate "C",
  -- The page that caused an event would get it back without it.
  exclude text,
  -- Reads end at a number of bytes; without it they would have to load the data to count them.
  size integer not null
);

-- Two publishers of the same key at the same time would both succeed without it. Trimming frees the key.
create unique index events_key on everpoll.events (channel, key) where key is not null;

create table everpoll.positions (
  -- The event id that clients see, and their cursor. The primary key is what "everything after 434" reads along.
  id bigint primary key,
  -- Which event it is. Kept apart from the event, so that no row is ever updated: no bloat, and reads stay narrow.
  row bigint not null,
  -- Repeated from the event, so that a reader of one channel does not touch the others' events.
  channel text collate "C" not null,
  -- Repeated from the event; see there.
  size integer not null,
  -- When the event was placed, for cursors that are a time and for retention by age. It follows the clock, which may
  -- be set back: order is only in id.
  ts timestamptz not null
);

-- The events of one quiet channel among millions of others could only be found by reading all of them without it.
create index positions_channel on everpoll.positions (channel, id);
-- A cursor that is a time would read the whole log without it.
create index positions_ts on everpoll.positions (ts) include (id);
-- HTTP publishers are told the ids of their events: they are looked up by row. Unique, since an event has one place.
create unique index positions_row on everpoll.positions (row);

-- No id in this order is ever used twice, rolled back or not: a hole is harmless, a reused id is a lost event.
create sequence everpoll.ids as bigint;

-- What retention removed. One row.
create table everpoll.log (
  -- A second row would make the low-water mark a matter of luck.
  one boolean primary key default true check (one),
  -- The low-water mark: events up to this id are gone. Without it, a cursor before it would silently miss events.
  low bigint not null default 0,
  -- The latest time of what is gone: the same for cursors that are a time.
  low_ts timestamptz not null default '-infinity'
);
insert into everpoll.log default values;

-- Which physical database the log lives in. One row, apart from everpoll.log, which trimming updates.
create table everpoll.identity (
  one boolean primary key default true check (one),
  -- Differs in a restored dump, a restored base backup and after a failover. Without it, such a log would give the
  -- ids of lost events to new ones, and clients that saw the lost ones would silently miss the new.
  fingerprint text not null,
  -- What of that is cheap enough to compare at every commit; it also differs after each start of the server.
  here text not null
);

-- Where the log went back: ids between "after" and "before" may have been given to events that are no longer here.
create table everpoll.rifts (
  -- The newest event of the copy. Cursors up to it are fine.
  after bigint not null,
  -- The first id that may be given since. It comes from the time, so it lies above all ids that a lost part, or an
  -- earlier restored copy of the same dump, can have used.
  before bigint primary key,
  -- For people.
  at timestamptz not null
);

-- All functions run with the rights of the log's owner and a search path that nobody else can write to: a publisher
-- needs no rights on positions, and a reader can let the log notice that it was restored.

-- Fails with a sentence that names the limit. The constraint's name is the error code of the HTTP interface.
create function everpoll.refuse(code text, message text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception using errcode = 'check_violation', constraint = code, message = message;
end
$$;

create function everpoll.check_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  bytes integer;
begin
  bytes := octet_length(new.channel);
  if bytes is null or bytes = 0 then
    perform everpoll.refuse('channel_empty', 'channel name is empty; name a channel of 1 to 200 bytes');
  elsif bytes > 200 then
    perform everpoll.refuse('channel_too_long', format('channel name is %s bytes long, the limit is 200; shorten the name', bytes));
  elsif new.channel ~ E'[\u0001-\u001f\u007f-\u009f/,]' then
    perform everpoll.refuse('channel_character', 'channel name contains a control character, ''/'' or '',''; these are not allowed');
  end if;
  bytes := octet_length(new.type);
  if bytes is null or bytes = 0 then
    perform everpoll.refuse('type_empty', 'type is empty; give one of 1 to 200 bytes, such as cheese_created');
  elsif bytes > 200 then
    perform everpoll.refuse('type_too_long', format('type is %s bytes long, the limit is 200; shorten it', bytes));
  elsif new.type ~ E'[\u0001-\u001f\u007f-\u009f]' then
    perform everpoll.refuse('type_character', 'type contains a control character; use printable ones');
  elsif starts_with(new.type, 'everpoll:') then
    perform everpoll.refuse('type_reserved', 'types that begin with "everpoll:" are reserved; choose another');
  end if;
  if octet_length(new.key) not between 1 and 200 then
    perform everpoll.refuse('key_length', format('key is %s bytes long; give one of 1 to 200 bytes, or none', octet_length(new.key)));
  end if;
  if octet_length(new.exclude) not between 1 and 128 then
    perform everpoll.refuse('wait_id_length', format('exclude is %s bytes long; give a wait_id of 1 to 128 bytes, or none', octet_length(new.exclude)));
  elsif new.exclude ~ E'[\u0001-\u001f\u007f-\u009f]' then
    perform everpoll.refuse('wait_id_character', 'exclude contains a control character; give the wait_id of a page');
  end if;
  new.size := octet_length(new.data::text);
  if new.size is null then
    perform everpoll.refuse('data_not_json', 'data is missing; give JSON, such as null or {}');
  elsif new.size > 1048576 then
    perform everpoll.refuse('data_too_large', format('data is %s bytes long, the limit is 1048576; publish a reference to it instead', new.size));
  end if;
  return new;
end
$$;

create trigger check_event before insert on everpoll.events
  for each row execute function everpoll.check_event();

-- Events never change: a client that has one would not hear of it. Only trimming removes them, since it moves the
-- low-water mark along. This keeps the log's owner, who has all rights, from an accident.
create function everpoll.keep() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'DELETE' and current_setting('everpoll.trimming', true) = 'yes' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    raise exception using errcode = 'restrict_violation', message = 'events never change; publish another event instead';
  end if;
  raise exception using errcode = 'restrict_violation', message = 'events leave the log only by retention; use everpoll.trim, or: everpoll trim';
end
$$;

create trigger keep before update or delete or truncate on everpoll.events
  for each statement execute function everpoll.keep();
create trigger keep before update or delete or truncate on everpoll.positions
  for each statement execute function everpoll.keep();

-- Everything that must be the same while ids go on as they were. The timeline tells a failover and a recovery to a
-- point in time; it comes from the running server, since the control file has the old one for a while after a failover.
create function everpoll.fingerprint() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select format('%s/%s/%s', (select system_identifier from pg_control_system()),
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_relation_filepath('everpoll.positions'::regclass))
$$;

-- The cheap part, from memory: database and table are in the path, the rest can only change with a start of the server.
create function everpoll.here() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select format('%s@%s', pg_relation_filepath('everpoll.positions'::regclass), (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint)
$$;

-- The newest id of this copy, or where it was.
create function everpoll.newest() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
  select greatest(
    (select max(id) from everpoll.positions),
    (select low from everpoll.log),
    (select max(before) - 1 from everpoll.rifts),
    0)
$$;

-- Goes on with ids that nobody has seen. The caller has the commit lock.
create function everpoll.open_rift(seen bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  next bigint;
begin
  select greatest(
      floor(extract(epoch from clock_timestamp()) * 10000)::bigint,
      everpoll.newest() + 2,
      seen + 2,
      -- A transaction that failed after it came here has moved the sequence already.
      last_value + 2)
    into next from everpoll.ids;
  insert into everpoll.rifts (after, before, at) values (everpoll.newest(), next, clock_timestamp());
  perform setval('everpoll.ids', next, false);
end
$$;

-- Compares the stored identity with the real one, and opens a rift when the log lives elsewhere now. The caller has
-- the commit lock.
create function everpoll.adopt_locked() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  real text := everpoll.fingerprint();
begin
  if exists (select from everpoll.identity where fingerprint = real) then
    -- Only the server was started anew. Under REPEATABLE READ somebody else may have noted that already, and the
    -- update would fail: then it is left to others.
    if current_setting('transaction_isolation') = 'read committed' then
      update everpoll.identity set here = everpoll.here() where here <> everpoll.here();
    end if;
    return;
  end if;
  perform everpoll.open_rift(0);
  insert into everpoll.identity (fingerprint, here) values (real, everpoll.here())
    on conflict (one) do update set fingerprint = excluded.fingerprint, here = excluded.here;
end
$$;

insert into everpoll.identity (fingerprint, here) values (everpoll.fingerprint(), everpoll.here());

-- Gives an event its place. Runs at COMMIT, after everything that the transaction did; from here to the end of the
-- commit only one transaction runs at a time. The lock's number is "Everpoll" in ASCII.
create function everpoll.place_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(x'45766572706f6c6c'::bigint);
  -- An application may be the first who writes after a restore; without this it would reuse ids.
  if not exists (select from everpoll.identity where here = everpoll.here()) then
    perform everpoll.adopt_locked();
  end if;
  insert into everpoll.positions (id, row, channel, size, ts)
    values (nextval('everpoll.ids'), new.row, new.channel, new.size, clock_timestamp());
  -- PostgreSQL sends it once per transaction, however many events there are.
  perform pg_notify('everpoll', '');
  return null;
end
$$;

create constraint trigger place_event after insert on everpoll.events
  deferrable initially deferred
  for each row execute function everpoll.place_event();

-- Called by every program when it connects: lets the log notice that it was restored, and tells its layout. A
-- read-only connection cannot record anything and goes on as it is.
create function everpoll.adopt() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'
     and not exists (select from everpoll.identity where here = everpoll.here()) then
    perform pg_advisory_xact_lock(x'45766572706f6c6c'::bigint);
    if not exists (select from everpoll.identity where here = everpoll.here()) then
      perform everpoll.adopt_locked();
    end if;
  end if;
  return (select max(number) from everpoll.migrations);
end
$$;

-- Called by a reader that saw the id "seen" before, when the newest is lower: the log went back in a way that its
-- identity does not show, as with a disk snapshot.
create function everpoll.declare_rift(seen bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Browsers count exactly to 2^53 only. Nothing near it was ever an id.
  if seen is null or seen > 4503599627370496 then
    perform everpoll.refuse('cursor_malformed', format('%s is not an id of this log', seen));
  end if;
  perform pg_advisory_xact_lock(x'45766572706f6c6c'::bigint);
  if everpoll.newest() < seen then
    perform everpoll.open_rift(seen);
  end if;
end
$$;

-- For applications: publishes an event when the transaction commits. False: its key is known, there is nothing to do.
create function everpoll.publish(channel text, type text, data json, key text default null, exclude text default null)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into everpoll.events (channel, type, data, key, exclude)
    values (publish.channel, publish.type, publish.data, publish.key, publish.exclude)
    on conflict do nothing;
  return found;
end
$$;

-- For applications: where a page starts that is made of data read *after* this, or in the same snapshot.
create function everpoll.cursor() returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select everpoll.newest()
$$;

-- Three functions for the programs' reads, with the reader's own rights. In plpgsql, since that keeps the plans of its
-- statements: planning took three times as long as running, and prepared statements do not get through pgbouncer. Plans
-- are generic, so that they are made once. Their estimates are therefore far off in a large log, and PostgreSQL would
-- compile them (jit): 680 ms for a read that takes 0.3. A plan that was made while the log was small stays until the
-- next ANALYZE, so it must go along the indexes from the start. Being stable, each function sees one snapshot, that of
-- its caller's statement.

-- What of the log is there.
create function everpoll.bounds()
returns table (low bigint, newest bigint, origin bigint, low_ts timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off as $$
begin
  return query
    select l.low, greatest(coalesce((select max(p.id) from everpoll.positions p), 0), l.low, o.origin), o.origin, l.low_ts
    from everpoll.log l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o;
end
$$;

-- Bounds, the rift that the cursor "seen" lies in, whether events after the time "since" are gone, and the events of the
-- channels (none means all) after the id "from_id": at most "most", of at most "bytes" together, but at least one.
-- "candidates" counts them and one more. Without events there is one row, of bounds alone.
create function everpoll.read(from_id bigint, most bigint, bytes bigint, seen bigint, since timestamptz, channels text[])
returns table (
  low bigint, newest bigint, origin bigint, trimmed boolean, rift_after bigint, rift_before bigint, candidates bigint,
  id bigint, channel text, type text, data text, exclude text, ts timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
begin
  return query
    with b as materialized (
      select l.low, l.low_ts, o.origin,
        greatest(coalesce((select max(p.id) from everpoll.positions p), 0), l.low, o.origin) as newest
      -- The limit tells the planner what it may not know: that there is one row.
      from (select * from everpoll.log limit 1) l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o
    ), rift as materialized (
      select r.after, r.before from everpoll.rifts r
      where r.after < seen and r.before - 1 > seen order by r.before desc limit 1
    ), candidates as materialized (
      select f.* from (
        -- Each channel gives its own first ones along its index; the first of these are the first of all. With a plain
        -- "channel = any (...) and id > ..." the planner may take the primary key instead and read all channels' events to
        -- find those of a rare one; comparing rows leaves it no such way, whatever its statistics say. Both ends are
        -- rows: next to "channel = ..." the lower one would only be a filter.
        (select g.* from unnest(read.channels) c (name) cross join lateral (
            select p.id, p.row, p.channel, p.size, p.ts from everpoll.positions p
            where (p.channel, p.id) > (c.name, from_id) and (p.channel, p.id) <= (c.name, 9223372036854775807)
            order by p.channel, p.id limit most + 1) g)
        union all
        (select p.id, p.row, p.channel, p.size, p.ts from everpoll.positions p
          where p.id > from_id and cardinality(read.channels) = 0 order by p.id limit most + 1)
      ) f order by f.id limit most + 1
    ), sums as materialized (
      select c.*, sum(c.size) over w as total, row_number() over w as place, count(*) over () as candidates
      from candidates c window w as (order by c.id rows unbounded preceding)
    )
    select b.low, b.newest, b.origin, b.low_ts > since, rift.after, rift.before,
      e.candidates, e.id, e.channel, e.type, e.data::text, e.exclude, e.ts
    from b left join rift on true left join (
      select s.id, s.channel, s.ts, s.candidates, v.type, v.data, v.exclude
      from sums s join everpoll.events v on v.row = s.row
      where s.place = 1 or s.place <= most and s.total <= read.bytes) e on true
    order by e.id;
end
$$;

-- Bounds, whether events after the time "since" are gone, and the first event that was placed after it. Clocks are set
-- back at times, so the event with the lowest time need not be the first; among the next hundred, it is looked for.
create function everpoll.first_since(since timestamptz)
returns table (low bigint, newest bigint, origin bigint, trimmed boolean, first bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
begin
  return query
    select b.low, b.newest, b.origin, b.low_ts > since, (
      select min(f.id) from (select p.id from everpoll.positions p where p.ts > since order by p.ts limit 100) f)
    from everpoll.bounds() b;
end
$$;

-- For the programs: publishes many events in their order. Tells for each the row of the event and, where the key was
-- known, the id of the event that is there. The ids of new events exist after COMMIT: see everpoll.placed. Along the
-- indexes, as the reads above.
create function everpoll.append(channels text[], types text[], data text[], keys text[], excludes text[])
returns table (event_row bigint, known_id bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  rows bigint[] := array(
    select nextval(pg_get_serial_sequence('everpoll.events', 'row')) from generate_series(1, cardinality(channels)));
begin
  insert into everpoll.events (row, channel, type, data, key, exclude)
    overriding system value
    select n.row, n.channel, n.type, n.data::json, n.key, n.exclude
    from unnest(rows, channels, types, data, keys, excludes)
      with ordinality as n (row, channel, type, data, key, exclude, place)
    order by n.place
    on conflict do nothing;
  -- Unknown keys first: this is all there is to look up for most.
  if not exists (select from unnest(keys) as k where k is not null) then
    return query select r, null::bigint from unnest(rows) with ordinality as n (r, place) order by place;
    return;
  end if;
  return query
    select coalesce(e.row, k.row), p.id
    from unnest(rows, channels, keys) with ordinality as n (row, channel, key, place)
    left join everpoll.events e on e.row = n.row
    left join everpoll.events k on e.row is null and k.channel = n.channel and k.key = n.key
    -- Events of this very call have no position yet.
    left join everpoll.positions p on p.row = k.row
    order by n.place;
end
$$;

-- For the programs: the ids of committed events, in the order of "rows".
create function everpoll.placed(rows bigint[]) returns setof bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
  select p.id from unnest(rows) with ordinality as n (row, place)
    left join everpoll.positions p on p.row = n.row order by n.place
$$;

-- Removes up to "batch" of the oldest events: those older than max_age, and those up to the id up_to (see
-- everpoll.surplus). Takes no lock that publishers or readers wait for; the lock here keeps two trimmers apart.
create function everpoll.trim(max_age interval, up_to bigint, batch integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  cutoff timestamptz := clock_timestamp() - max_age;
  mark bigint;
  mark_ts timestamptz;
  rows bigint[];
begin
  perform pg_advisory_xact_lock(x'45766572706f6c6d'::bigint);
  -- Ids, not times, decide what is oldest: the first event that stays keeps all that follow it.
  select max(id), max(ts), array_agg(row) into mark, mark_ts, rows
  from (
    select id, row, ts, bool_and(coalesce(ts < cutoff, false) or coalesce(id <= up_to, false)) over (order by id) as goes
    from (
      select p.id, p.row, p.ts from everpoll.positions p
      where p.id > (select low from everpoll.log) order by p.id limit batch
    ) oldest
  ) marked
  where goes;
  if mark is null then
    return 0;
  end if;
  perform set_config('everpoll.trimming', 'yes', true);
  delete from everpoll.positions where id <= mark;
  delete from everpoll.events e where e.row = any (rows);
  update everpoll.log set low = mark, low_ts = greatest(low_ts, mark_ts);
  perform set_config('everpoll.trimming', '', true);
  return cardinality(rows);
end
$$;

-- The newest id that has to go, so that "keep" events stay; null when there are not more. Reads as many entries of an
-- index as it keeps.
create function everpoll.surplus(keep bigint) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select id from everpoll.positions where id > (select low from everpoll.log) order by id desc offset keep limit 1
$$;

-- Lets a role publish, and nothing else.
create function everpoll.grant_publisher(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant insert (channel, type, data, key, exclude) on everpoll.events to %I', role);
  execute format('grant execute on function everpoll.publish(text, text, json, text, text), everpoll.cursor(), everpoll.adopt(),
    everpoll.append(text[], text[], text[], text[], text[]), everpoll.placed(bigint[]) to %I', role);
end
$$;

-- Lets a role read events, and nothing else.
create function everpoll.grant_reader(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant select on everpoll.events, everpoll.positions, everpoll.log, everpoll.rifts, everpoll.migrations to %I', role);
  execute format('grant execute on function everpoll.cursor(), everpoll.adopt(), everpoll.declare_rift(bigint), everpoll.bounds(),
    everpoll.read(bigint, bigint, bigint, bigint, timestamptz, text[]), everpoll.first_since(timestamptz) to %I', role);
end
$$;

-- Lets a role remove events by retention, and nothing else.
create function everpoll.grant_trimmer(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant execute on function everpoll.adopt(), everpoll.trim(interval, bigint, integer), everpoll.surplus(bigint) to %I', role);
end
$$;

-- Takes what was written for the table that older programs used: insert into events (channel_id, data).
create function everpoll.take_compat_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if new.id is not null or new.ts is not null then
    perform everpoll.refuse('compat_columns', 'id and ts are given at COMMIT; insert only channel_id and data');
  end if;
  if json_typeof(new.data) is distinct from 'object' or json_typeof(new.data -> 'type') is distinct from 'string' then
    perform everpoll.refuse('compat_data', 'data must be an object with a text "type", as in {"type": "cheese_created", "data": {"id": 1}}');
  end if;
  insert into everpoll.events (channel, type, data)
    values (new.channel_id, new.data ->> 'type', coalesce(new.data -> 'data', 'null'));
  return new;
end
$$;

-- Creates the view public.events for such programs. Who may insert is decided by grants on the view.
create function everpoll.install_compat_view() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regclass('public.events') is not null then
    raise exception using errcode = 'duplicate_table', message = 'public.events exists already; rename it first, then install the view';
  end if;
  create view public.events as
    select p.id, e.channel as channel_id, json_build_object('type', e.type, 'data', e.data) as data, p.ts
    from everpoll.positions p join everpoll.events e on e.row = p.row;
  create trigger take_compat_event instead of insert on public.events
    for each row execute function everpoll.take_compat_event();
end
$$;

-- Functions are open to everyone unless this is said; the schema itself is not, so this is the second lock.
revoke all on all functions in schema everpoll from public;
