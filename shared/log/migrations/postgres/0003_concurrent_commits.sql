-- Transactions that publish commit at the same time.
--
-- Until now each of them held the commit lock alone until the disk had it, and NOTIFY, which PostgreSQL serialises as
-- well, came with each: many writers published no more than a few do. Now they hold the lock together, and it is readers
-- who take care of the order:
--
-- An id is still drawn at COMMIT, behind the lock. So when a reader looks which ids are drawn, and then waits until those who
-- hold the lock at that moment have let it go, all these ids are *settled*: each is committed and visible, or will never
-- be. Readers read up to there. No publisher ever waits for a reader, nor for another publisher.
--
-- Ids follow the order of conflicts: whoever waited for another transaction's commit draws a higher id. But two
-- transactions that have nothing to do with each other may become visible in another order than that of their ids, so a
-- snapshot may have 7 and not yet 6. A cursor of that snapshot is 5. Where a page's data must have exactly what lies before its
-- cursor, the setting everpoll.serial_commits (on) makes transactions commit one by one, as they did until now.
--
-- Wake-ups are left out for a few milliseconds after one. Whoever is woken up therefore looks again until that time is
-- over: everpoll.called_lately tells.

-- The table is called by another name now, since following it by hand would miss events: the view that takes its
-- name shows what is settled.
alter table everpoll.positions rename to places;

-- As before, with the new name.
create or replace function everpoll.fingerprint() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select format('%s/%s/%s', (select system_identifier from pg_control_system()),
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_relation_filepath('everpoll.places'::regclass))
$$;

create or replace function everpoll.here() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select format('%s@%s', pg_relation_filepath('everpoll.places'::regclass), (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint)
$$;

create or replace function everpoll.newest() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
  select greatest(
    (select max(id) from everpoll.places),
    (select low from everpoll.log),
    (select max(before) - 1 from everpoll.rifts),
    0)
$$;

create or replace function everpoll.placed(rows bigint[]) returns setof bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
  select p.id from unnest(rows) with ordinality as n (row, place)
    left join everpoll.places p on p.row = n.row order by n.place
$$;

create or replace function everpoll.append(channels text[], types text[], data text[], keys text[], excludes text[])
returns table (event_row bigint, known_id bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  -- Found once: looking it up takes longer than drawing from it.
  numbers regclass := pg_get_serial_sequence('everpoll.events', 'row');
  rows bigint[] := array(select nextval(numbers) from generate_series(1, cardinality(channels)));
begin
  -- Unknown keys first: this is all there is to do for most. Without "on conflict", which writes each row in two steps.
  if array_remove(keys, null) = '{}' then
    insert into everpoll.events (row, channel, type, data, exclude)
      overriding system value
      select n.row, n.channel, n.type, n.data::json, n.exclude
      from unnest(rows, channels, types, data, excludes) with ordinality as n (row, channel, type, data, exclude, place)
      order by n.place;
    return query select r, null::bigint from unnest(rows) with ordinality as n (r, place) order by place;
    return;
  end if;
  insert into everpoll.events (row, channel, type, data, key, exclude)
    overriding system value
    select n.row, n.channel, n.type, n.data::json, n.key, n.exclude
    from unnest(rows, channels, types, data, keys, excludes)
      with ordinality as n (row, channel, type, data, key, exclude, place)
    order by n.place
    on conflict do nothing;
  return query
    select coalesce(e.row, k.row), p.id
    from unnest(rows, channels, keys) with ordinality as n (row, channel, key, place)
    left join everpoll.events e on e.row = n.row
    left join everpoll.events k on e.row is null and k.channel = n.channel and k.key = n.key
    -- Events of this very call have no position yet.
    left join everpoll.places p on p.row = k.row
    order by n.place;
end
$$;

create or replace function everpoll.surplus(keep bigint) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select id from everpoll.places where id > (select low from everpoll.log) order by id desc offset keep limit 1
$$;

create or replace function everpoll.install_compat_view() returns void
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

-- When somebody was last woken up, in milliseconds since 1970. A sequence, because it must be seen at once, and cost
-- nothing. Without it, each commit would be a NOTIFY.
create sequence everpoll.called as bigint;

-- Up to where ids were found to be settled. One row.
create table everpoll.settled (
  -- A second row would make it a matter of luck which one is read.
  one boolean primary key default true check (one),
  -- A cursor of a snapshot starts looking from here; without it, from the beginning of the log.
  id bigint not null
);
insert into everpoll.settled (id) select everpoll.newest();

-- As before, but what is fine is found to be so in one step: PL/pgSQL takes longer for ten conditions than for one.
create or replace function everpoll.check_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  new.size := octet_length(new.data::text);
  if octet_length(new.channel) between 1 and 200
     and octet_length(new.type) between 1 and 200
     and new.size <= 1048576
     and new.channel !~ E'[\u0001-\u001f\u007f-\u009f/,]'
     and new.type !~ E'[\u0001-\u001f\u007f-\u009f]'
     and not starts_with(new.type, 'everpoll:')
     and (new.key is null or octet_length(new.key) between 1 and 200)
     and (new.exclude is null or octet_length(new.exclude) between 1 and 128 and new.exclude !~ E'[\u0001-\u001f\u007f-\u009f]')
  then
    return new;
  end if;
  perform everpoll.refuse_event(new);
  return new;
end
$$;

-- Says what is wrong with an event.
create function everpoll.refuse_event(event everpoll.events) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  bytes integer;
begin
  bytes := octet_length(event.channel);
  if bytes is null or bytes = 0 then
    perform everpoll.refuse('channel_empty', 'channel name is empty; name a channel of 1 to 200 bytes');
  elsif bytes > 200 then
    perform everpoll.refuse('channel_too_long', format('channel name is %s bytes long, the limit is 200; shorten the name', bytes));
  elsif event.channel ~ E'[\u0001-\u001f\u007f-\u009f/,]' then
    perform everpoll.refuse('channel_character', 'channel name contains a control character, ''/'' or '',''; these are not allowed');
  end if;
  bytes := octet_length(event.type);
  if bytes is null or bytes = 0 then
    perform everpoll.refuse('type_empty', 'type is empty; give one of 1 to 200 bytes, such as cheese_created');
  elsif bytes > 200 then
    perform everpoll.refuse('type_too_long', format('type is %s bytes long, the limit is 200; shorten it', bytes));
  elsif event.type ~ E'[\u0001-\u001f\u007f-\u009f]' then
    perform everpoll.refuse('type_character', 'type contains a control character; use printable ones');
  elsif starts_with(event.type, 'everpoll:') then
    perform everpoll.refuse('type_reserved', 'types that begin with "everpoll:" are reserved; choose another');
  end if;
  if octet_length(event.key) not between 1 and 200 then
    perform everpoll.refuse('key_length', format('key is %s bytes long; give one of 1 to 200 bytes, or none', octet_length(event.key)));
  end if;
  if octet_length(event.exclude) not between 1 and 128 then
    perform everpoll.refuse('wait_id_length', format('exclude is %s bytes long; give a wait_id of 1 to 128 bytes, or none', octet_length(event.exclude)));
  elsif event.exclude ~ E'[\u0001-\u001f\u007f-\u009f]' then
    perform everpoll.refuse('wait_id_character', 'exclude contains a control character; give the wait_id of a page');
  end if;
  if event.size is null then
    perform everpoll.refuse('data_not_json', 'data is missing; give JSON, such as null or {}');
  elsif event.size > 1048576 then
    perform everpoll.refuse('data_too_large', format('data is %s bytes long, the limit is 1048576; publish a reference to it instead', event.size));
  end if;
end
$$;

-- Whether a wake-up was sent in the last few milliseconds, so that publishers leave out theirs. When the clock was set
-- back, the last one seems to lie ahead; then there was none.
create function everpoll.called_lately(at timestamptz) returns boolean
language sql volatile as $$
  select coalesce((date_part('epoch', at) * 1000)::bigint - pg_sequence_last_value('everpoll.called'::regclass) between 0 and 4, false)
$$;

-- Gives an event its place. Runs at COMMIT, after everything that the transaction did.
create or replace function everpoll.place_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  at timestamptz;
begin
  -- An application may be the first who writes after a restore; without this it would reuse ids. A session need not look again:
  -- while it lasts, the server was not started anew; and the table is the same one as long as its file is. Before the
  -- lock is shared: two who share it would wait for each other to have it alone.
  if current_setting('everpoll.home', true) is distinct from pg_relation_filepath('everpoll.places'::regclass) then
    if not exists (select from everpoll.identity where here = everpoll.here()) then
      perform pg_advisory_xact_lock(x'45766572706f6c6c'::bigint);
      perform everpoll.adopt_locked();
    end if;
    perform set_config('everpoll.home', pg_relation_filepath('everpoll.places'::regclass), false);
  end if;
  if current_setting('everpoll.serial_commits', true) = 'on' then
    perform pg_advisory_xact_lock(x'45766572706f6c6c'::bigint);
  else
    perform pg_advisory_xact_lock_shared(x'45766572706f6c6c'::bigint);
  end if;
  at := clock_timestamp();
  insert into everpoll.places (id, row, channel, size, ts)
    values (nextval('everpoll.ids'), new.row, new.channel, new.size, at);
  -- Behind the lock: a reader that sees the time being over finds those who still relied on it among its holders.
  if not everpoll.called_lately(at) then
    perform setval('everpoll.called', (date_part('epoch', at) * 1000)::bigint);
    perform pg_notify('everpoll', '');
  end if;
  return null;
end
$$;

-- Locks on the commit lock, and of running transactions on themselves, all of one moment.
create view everpoll.locks as
  select l.virtualtransaction as holder, l.pid, l.transactionid, l.locktype = 'advisory' as commits
  from pg_locks l
  where l.granted and (
    l.locktype = 'advisory' and l.classid = x'45766572'::int::oid and l.objid = x'706f6c6c'::int::oid and l.objsubid = 1
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
    or l.locktype = 'transactionid' and l.mode = 'ExclusiveLock');

-- Whether no transaction was committing when this snapshot was taken: what it does not show of the ids drawn before will
-- never be. Reads snapshots of its own, so it must be volatile, and can tell only in a transaction that is "read committed".
--
-- A snapshot names those who ran then, but only up to the youngest that had ended. Whoever was committing and is younger than that
-- either holds the commit lock still, which nobody lets go before the end; or it has ended since, and then there is a younger one
-- that has ended than the snapshot knows. Of those it names, each must run still, and hold no commit lock.
create function everpoll.nobody_was_committing(taken pg_snapshot) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' or exists (
    with locks as materialized (select * from everpoll.locks)
    select from locks held where held.commits
    union all
    select from pg_snapshot_xip(taken) x (id)
    where not exists (select from locks runs where runs.transactionid = x.id::xid))
  then
    return false;
  end if;
  -- After the locks: whoever let them go before is seen now.
  return pg_snapshot_xmax(pg_current_snapshot()) = pg_snapshot_xmax(taken);
end
$$;

-- The last id before the first that is missing after "known". As all of them are there, they are settled, whoever is
-- committing. At most so many are looked at.
create function everpoll.before_hole(known bigint, most bigint) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  last bigint;
begin
  if not exists (select from everpoll.places p where p.id = known + 1) then
    return known;
  end if;
  select p.id into last from everpoll.places p
    where p.id > known and p.id <= known + most
      and not exists (select from everpoll.places n where n.id = p.id + 1)
    order by p.id limit 1;
  return coalesce(last, known + most);
end
$$;

-- The newest id of which this snapshot can tell that all before it are settled.
--
-- When nobody was committing as it was taken, that is the newest that it shows. Else it goes from where ids were last found to be
-- settled to the first hole. An earlier cursor is a right one, too. A copy does not know who runs.
create function everpoll.settled_here() returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  known bigint;
  newest bigint;
begin
  select greatest(s.id, l.low, (select max(r.before) - 1 from everpoll.rifts r)), (select max(p.id) from everpoll.places p)
    into known, newest from everpoll.settled s, everpoll.log l;
  if newest is null or newest <= known then
    return known;
  end if;
  if not pg_is_in_recovery() and everpoll.nobody_was_committing(pg_current_snapshot()) then
    return newest;
  end if;
  return everpoll.before_hole(known, 10000);
end
$$;

-- One row for each event that is settled, in the order of ids: what a query of one's own may follow.
create view everpoll.positions as
  select p.id, p.row, p.channel, p.size, p.ts from everpoll.places p
  where p.id <= (select everpoll.settled_here());

-- The id up to which all ids are settled now. What is read in a later snapshot, in the next statement, up to this id, is
-- all that there will ever be. "seen": what the reader has seen before, which was settled then. Waits for those who are committing,
-- but not for somebody who hangs there.
--
-- With "follows" it is for the one who follows the log, and comes back soon when "again" is true: it does not wait for
-- those who are committing while there is something before their ids; and publishers leave out their wake-ups at the moment.
create function everpoll.settle(seen bigint, follows boolean, out settled bigint, out again boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  drawn bigint;
  known bigint;
  committing text[];
  noted boolean := false;
  patience timestamptz;
  looks integer := 0;
begin
  -- Before all else: whoever relies on the last wake-up is then among those who are committing.
  again := follows and everpoll.called_lately(clock_timestamp());
  -- First the ids, then who is committing: not the other way round.
  select greatest(i.last_value - case when i.is_called then 0 else 1 end, (select max(p.id) from everpoll.places p)), s.id
    into drawn, known from everpoll.ids i, everpoll.settled s;
  settled := drawn;
  if known = drawn then
    return;
  end if;
  -- One snapshot for all statements, or a copy, which does not know who is committing: only what they show by themselves.
  if pg_is_in_recovery() or current_setting('transaction_isolation') <> 'read committed' then
    settled := greatest(everpoll.settled_here(), least(seen, drawn));
    return;
  end if;
  committing := array(
    select l.holder from everpoll.locks l where l.commits and l.pid is distinct from pg_backend_pid());
  if cardinality(committing) = 0 and (seen = 0 or seen >= drawn) or drawn - known >= 1000 then
    -- Noted for the cursors of snapshots, and for the next who asks. Not in a hurry: what is lost of it in a crash is found
    -- again, and whoever waits for news gets them first.
    if current_setting('transaction_read_only') = 'off' and pg_try_advisory_xact_lock(x'45766572706f6c6f'::bigint) then
      perform set_config('synchronous_commit', 'off', true);
      noted := true;
    end if;
  end if;
  patience := clock_timestamp() + interval '250 milliseconds';
  while cardinality(committing) > 0 loop
    if follows then
      settled := everpoll.before_hole(least(seen, drawn), 1000);
      if settled > seen then
        again := true;
        exit;
      end if;
      settled := drawn;
    end if;
    if clock_timestamp() > patience then
      settled := greatest(everpoll.settled_here(), least(seen, drawn));
      again := follows;
      return;
    end if;
    -- Most commits are done before the shortest sleep is over, which is a millisecond.
    if looks < 8 then
      looks := looks + 1;
    else
      perform pg_sleep(0.001);
    end if;
    committing := array(select l.holder from everpoll.locks l where l.commits and l.holder = any (committing));
  end loop;
  if noted then
    update everpoll.settled s set id = settle.settled where s.id < settle.settled;
  end if;
end
$$;

-- What of the log is there.
create or replace function everpoll.bounds()
returns table (low bigint, newest bigint, origin bigint, low_ts timestamptz)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  settled bigint := (everpoll.settle(0, false)).settled;
begin
  return query select * from everpoll.bounds_up_to(settled);
end
$$;

-- The same in the snapshot of its caller, who has found out what is settled.
create function everpoll.bounds_up_to(settled bigint)
returns table (low bigint, newest bigint, origin bigint, low_ts timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off as $$
begin
  return query
    select l.low, greatest(coalesce((select max(p.id) from everpoll.places p where p.id <= settled), 0), l.low, o.origin), o.origin, l.low_ts
    from everpoll.log l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o;
end
$$;

-- As before, up to what is settled. Being volatile, it reads in a snapshot that is taken after that was found out.
create or replace function everpoll.read(from_id bigint, most bigint, bytes bigint, seen bigint, since timestamptz, channels text[])
returns table (
  low bigint, newest bigint, origin bigint, trimmed boolean, rift_after bigint, rift_before bigint, candidates bigint,
  id bigint, channel text, type text, data text, exclude text, ts timestamptz)
language plpgsql volatile set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  settled bigint := (everpoll.settle(greatest(seen, from_id), false)).settled;
begin
  return query
    with b as materialized (
      select l.low, l.low_ts, o.origin,
        greatest(coalesce((select max(p.id) from everpoll.places p where p.id <= settled), 0), l.low, o.origin) as newest
      from (select * from everpoll.log limit 1) l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o
    ), rift as materialized (
      select r.after, r.before from everpoll.rifts r
      where r.after < seen and r.before - 1 > seen order by r.before desc limit 1
    ), candidates as materialized (
      select f.* from (
        -- Rows are compared, and both ends are rows, for the planner: see the first version.
        (select g.* from unnest(read.channels) c (name) cross join lateral (
            select p.id, p.row, p.channel, p.size, p.ts from everpoll.places p
            where (p.channel, p.id) > (c.name, from_id) and (p.channel, p.id) <= (c.name, settled)
            order by p.channel, p.id limit most + 1) g)
        union all
        (select p.id, p.row, p.channel, p.size, p.ts from everpoll.places p
          where p.id > from_id and p.id <= settled and cardinality(read.channels) = 0 order by p.id limit most + 1)
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

-- For the one who follows the whole log: everpoll.read without channels, cursors and rifts. "again": look again in
-- some milliseconds, also without a wake-up.
create function everpoll.tail(from_id bigint, most bigint, bytes bigint)
returns table (
  low bigint, newest bigint, origin bigint, again boolean, candidates bigint,
  id bigint, channel text, type text, data text, exclude text, ts timestamptz)
language plpgsql volatile set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  settled bigint;
  soon boolean;
begin
  select s.settled, s.again into settled, soon from everpoll.settle(from_id, true) s;
  return query
    with b as materialized (
      select l.low, o.origin,
        greatest(coalesce((select max(p.id) from everpoll.places p where p.id <= settled), 0), l.low, o.origin) as newest
      from (select * from everpoll.log limit 1) l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o
    ), sums as materialized (
      select c.*, sum(c.size) over w as total, row_number() over w as place, count(*) over () as candidates
      from (select p.id, p.row, p.size, p.ts from everpoll.places p
        where p.id > from_id and p.id <= settled order by p.id limit most + 1) c
      window w as (order by c.id rows unbounded preceding)
    )
    select b.low, b.newest, b.origin, soon, e.candidates, e.id, e.channel, e.type, e.data::text, e.exclude, e.ts
    from b left join (
      select s.id, v.channel, v.type, v.data, v.exclude, s.ts, s.candidates
      from sums s join everpoll.events v on v.row = s.row
      where s.place = 1 or s.place <= most and s.total <= tail.bytes) e on true
    order by e.id;
end
$$;

-- As before, up to what is settled.
create or replace function everpoll.first_since(since timestamptz)
returns table (low bigint, newest bigint, origin bigint, trimmed boolean, first bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  settled bigint := (everpoll.settle(0, false)).settled;
begin
  return query
    select b.low, b.newest, b.origin, b.low_ts > since, (
      select min(f.id) from (
        select p.id from everpoll.places p where p.ts > since and p.id <= settled order by p.ts limit 100) f)
    -- Of the same settled ids: what is settled since would be taken for read.
    from everpoll.bounds_up_to(settled) b;
end
$$;

-- As before, of this snapshot.
create or replace function everpoll.cursor() returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select greatest(
    (select max(p.id) from everpoll.places p where p.id <= (select everpoll.settled_here())),
    (select l.low from everpoll.log l),
    (select max(r.before) - 1 from everpoll.rifts r),
    0)
$$;

-- As before, up to what is settled: the low-water mark must not go past somebody who is committing.
create or replace function everpoll.trim(max_age interval, up_to bigint, batch integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  cutoff timestamptz := clock_timestamp() - max_age;
  bottom bigint;
  settled bigint;
  durability text := current_setting('synchronous_commit');
  mark bigint;
  mark_ts timestamptz;
  rows bigint[];
begin
  perform pg_advisory_xact_lock(x'45766572706f6c6d'::bigint);
  settled := (everpoll.settle(0, false)).settled;
  perform set_config('synchronous_commit', durability, true);
  select low into bottom from everpoll.log;
  -- Ids, not times, decide what is oldest: the first event that stays keeps all that follow it.
  select max(id), max(ts), array_agg(row) into mark, mark_ts, rows
  from (
    select id, row, ts, bool_and(coalesce(ts < cutoff, false) or coalesce(id <= up_to, false)) over (order by id) as goes
    from (select p.id, p.row, p.ts from everpoll.places p where p.id > bottom and p.id <= settled order by p.id limit batch) oldest
  ) marked
  where goes;
  if mark is null then
    return 0;
  end if;
  perform set_config('everpoll.trimming', 'yes', true);
  delete from everpoll.places where id > bottom and id <= mark;
  delete from everpoll.events e where e.row = any (rows);
  update everpoll.log set low = mark, low_ts = greatest(low_ts, mark_ts);
  perform set_config('everpoll.trimming', '', true);
  return cardinality(rows);
end
$$;

-- As before, with the new functions.
create or replace function everpoll.grant_reader(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant select on everpoll.events, everpoll.places, everpoll.positions, everpoll.log, everpoll.rifts, everpoll.migrations to %I', role);
  execute format('grant execute on function everpoll.cursor(), everpoll.adopt(), everpoll.declare_rift(bigint), everpoll.bounds(), everpoll.bounds_up_to(bigint),
    everpoll.read(bigint, bigint, bigint, bigint, timestamptz, text[]), everpoll.first_since(timestamptz),
    everpoll.tail(bigint, bigint, bigint), everpoll.settle(bigint, boolean) to %I', role);
end
$$;

revoke all on all functions in schema everpoll from public;
-- It tells an id, and whoever reads through one of the views calls it.
grant execute on function everpoll.settled_here() to public;

-- The view for older programs, too, shows what is settled.
do $$
begin
  if exists (select from pg_trigger where tgrelid = to_regclass('public.events') and tgname = 'take_compat_event') then
    create or replace view public.events as
      select p.id, e.channel as channel_id, json_build_object('type', e.type, 'data', e.data) as data, p.ts
      from everpoll.positions p join everpoll.events e on e.row = p.row;
  end if;
end
$$;

-- Whoever may read may go on reading.
do $$
declare
  reader record;
begin
  for reader in
    select distinct r.rolname from pg_proc p, aclexplode(p.proacl) a, pg_roles r
    where p.oid = 'everpoll.bounds()'::regprocedure and a.privilege_type = 'EXECUTE' and r.oid = a.grantee
  loop
    perform everpoll.grant_reader(reader.rolname);
  end loop;
end
$$;
