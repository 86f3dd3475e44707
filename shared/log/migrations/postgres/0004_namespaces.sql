-- Events of some channels may stay for longer or shorter than the others: each namespace whose events ever did has a
-- low-water mark of its own.
--
-- everpoll.log keeps the highest of these marks. Whoever looks there alone may tell a gap too much, and never one too few.

create table everpoll.namespaces (
  -- How the names of its channels begin, such as "shop:". A channel is in the one with the longest prefix; all that are in
  -- no other are in ''. Rows stay when nothing is set for them any more: what they tell remains true.
  prefix text collate "C" primary key,
  -- Its low-water mark: events on its channels up to this id are gone. With one mark for all, pages of a namespace that keeps
  -- its events would be told a gap whenever another loses some.
  low bigint not null,
  -- The latest time of what is gone: the same for cursors that are a time.
  low_ts timestamptz not null,
  -- Up to this id there are no events on its channels. Not the same as the mark: below it, there may never have been any. Without
  -- it, each look for what has to go would begin among all the events that others keep.
  seen bigint not null
);
insert into everpoll.namespaces (prefix, low, low_ts, seen) select '', low, low_ts, low from everpoll.log;

-- Changes with each change of a mark. Without it, whoever follows the log would have to read all marks again each time.
alter table everpoll.log add column trims bigint not null default 0;

-- The beginnings of a channel's name that end with a colon: all prefixes that it could have, which are few however many namespaces
-- there are. This and the next have no settings of their own, so that they become a part of the statement that they are used in.
create function everpoll.prefixes_of(channel text) returns table (prefix text, colons integer)
language sql stable as $$
  select array_to_string((string_to_array(channel, ':'))[1:colons], ':') || ':', colons
  from generate_series(1, cardinality(string_to_array(channel, ':')) - 1) colons
$$;

-- The namespace that a channel is in.
create function everpoll.namespace_of(channel text) returns table (prefix text, low bigint, low_ts timestamptz)
language sql stable as $$
  select n.prefix, n.low, n.low_ts
  from (select * from everpoll.prefixes_of(channel) union all select '', 0) beginning (prefix, colons)
    join everpoll.namespaces n on n.prefix = beginning.prefix
  order by beginning.colons desc limit 1
$$;

-- As before, with the mark of the channels: the highest, where they are in several namespaces.
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
      select coalesce(m.low, l.low) as low, coalesce(m.low_ts, l.low_ts) as low_ts, o.origin,
        greatest(coalesce((select max(p.id) from everpoll.places p where p.id <= settled), 0), l.low, o.origin) as newest
      from (select * from everpoll.log limit 1) l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o,
        -- Nulls where all channels are asked for, and, looked at first, where there is only one mark, which everpoll.log has.
        (select max(n.low) as low, max(n.low_ts) as low_ts
          from unnest(read.channels) c (name) cross join lateral everpoll.namespace_of(c.name) n
          where exists (select from everpoll.namespaces s where s.prefix > '')) m
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

-- The marks of all namespaces, in one row.
create view everpoll.marks as select array_agg(prefix) as prefixes, array_agg(low) as lows from everpoll.namespaces;

-- As before, and with the number that changes with the marks.
drop function everpoll.tail(bigint, bigint, bigint);
create function everpoll.tail(from_id bigint, most bigint, bytes bigint)
returns table (
  low bigint, newest bigint, origin bigint, again boolean, candidates bigint,
  id bigint, channel text, type text, data text, exclude text, ts timestamptz, trims bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  settled bigint;
  soon boolean;
begin
  select s.settled, s.again into settled, soon from everpoll.settle(from_id, true) s;
  return query
    with b as materialized (
      select l.low, o.origin, l.trims,
        greatest(coalesce((select max(p.id) from everpoll.places p where p.id <= settled), 0), l.low, o.origin) as newest
      from (select * from everpoll.log limit 1) l, (select coalesce(max(r.before) - 1, 0) as origin from everpoll.rifts r) o
    ), sums as materialized (
      select c.*, sum(c.size) over w as total, row_number() over w as place, count(*) over () as candidates
      from (select p.id, p.row, p.size, p.ts from everpoll.places p
        where p.id > from_id and p.id <= settled order by p.id limit most + 1) c
      window w as (order by c.id rows unbounded preceding)
    )
    select b.low, b.newest, b.origin, soon, e.candidates, e.id, e.channel, e.type, e.data::text, e.exclude, e.ts, b.trims
    from b left join (
      select s.id, v.channel, v.type, v.data, v.exclude, s.ts, s.candidates
      from sums s join everpoll.events v on v.row = s.row
      where s.place = 1 or s.place <= most and s.total <= tail.bytes) e on true
    order by e.id;
end
$$;

-- As before: of all channels, whatever their namespace.
create or replace function everpoll.surplus(keep bigint) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select id from everpoll.places where id > (select min(seen) from everpoll.namespaces) order by id desc offset keep limit 1
$$;

-- The same for the channels whose names begin with "prefix" and with no longer one of "own"; '' is for those that begin with
-- none of them. Reads all that these channels have along an index; for '', all that the log has until as many as stay are found.
create function everpoll.surplus(own text[], prefix text, keep bigint) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  inner_prefixes text[] := array(select o from unnest(own) o where starts_with(o, surplus.prefix) and o <> surplus.prefix);
begin
  if surplus.prefix = '' then
    return (select p.id from everpoll.places p
      where p.id > (select min(seen) from everpoll.namespaces)
        and not exists (select from everpoll.prefixes_of(p.channel) b where b.prefix in (select i from unnest(inner_prefixes) i))
      order by p.id desc offset keep limit 1);
  end if;
  -- The offset keeps the planner from reading along the ids, where these may be rare.
  return (select f.id from (
      select p.id from everpoll.places p
      -- In the "C" collation, ';' follows ':', with which a prefix ends.
      where p.channel >= surplus.prefix and p.channel < left(surplus.prefix, -1) || ';'
        and not exists (select from everpoll.prefixes_of(p.channel) b where b.prefix in (select i from unnest(inner_prefixes) i))
      offset 0) f
    order by f.id desc offset keep limit 1);
end
$$;

-- Removes the oldest events of some namespaces: those older than max_age, and those up to the id up_to (see
-- everpoll.surplus). "own" are all prefixes for which something of their own is set, "prefixes" those of them that this is
-- about; '' is for all channels that begin with none. It looks at up to "batch" events, those of others among them; with
-- "more", there may be more to remove. Takes no lock that publishers or readers wait for; the lock here keeps two trimmers apart.
create function everpoll.trim(own text[], prefixes text[], max_age interval, up_to bigint, batch integer, out removed integer, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  cutoff timestamptz := clock_timestamp() - max_age;
  durability text := current_setting('synchronous_commit');
  -- The low-water mark must not go past somebody who is committing.
  settled bigint;
  mine text[];
  start bigint;
  reached bigint;
  looked integer;
  ids bigint[];
  rows bigint[];
  stamps timestamptz[];
  names text[];
begin
  perform pg_advisory_xact_lock(x'45766572706f6c6d'::bigint);
  settled := (everpoll.settle(0, false)).settled;
  perform set_config('synchronous_commit', durability, true);
  -- What was gone of the namespace around a new one, is gone of it.
  insert into everpoll.namespaces (prefix, low, low_ts, seen)
    select o.prefix, n.low, n.low_ts, n.seen
    from unnest(own) o (prefix) cross join lateral everpoll.namespace_of(o.prefix) around join everpoll.namespaces n on n.prefix = around.prefix
    where around.prefix <> o.prefix;
  if found then
    update everpoll.log set trims = trims + 1;
  end if;
  -- Those for which nothing is set any more go with what is around them.
  mine := array(
    select n.prefix from everpoll.namespaces n
    where case when n.prefix in (select o from unnest(own) o) then n.prefix else coalesce(
        (select b.prefix from everpoll.prefixes_of(n.prefix) b where b.prefix in (select o from unnest(own) o)
          order by b.colons desc limit 1), '') end
      in (select p from unnest(prefixes) p));
  select min(seen) into start from everpoll.namespaces where prefix = any (mine);
  -- Ids, not times, decide what is oldest: the first event that stays keeps all that follow it.
  select max(m.id), count(*), array_agg(m.id) filter (where m.is_mine), array_agg(m.row) filter (where m.is_mine),
      array_agg(m.ts) filter (where m.is_mine), array_agg(m.prefix) filter (where m.is_mine)
    into reached, looked, ids, rows, stamps, names
  from (
    select w.*, bool_and(not w.is_mine or coalesce(w.ts < cutoff, false) or coalesce(w.id <= up_to, false)) over (order by w.id) as goes
    from (
      select p.id, p.row, p.ts, n.prefix, n.prefix in (select m from unnest(mine) m) as is_mine
      from (select * from everpoll.places p where p.id > start and p.id <= settled order by p.id limit batch) p
        cross join lateral everpoll.namespace_of(p.channel) n
    ) w
  ) m
  where m.goes;
  more := looked > 0 and looked = batch;
  removed := coalesce(cardinality(ids), 0);
  if removed > 0 then
    perform set_config('everpoll.trimming', 'yes', true);
    if removed = looked then
      delete from everpoll.places where id > start and id <= reached;
    else
      delete from everpoll.places p using unnest(ids) g (id) where p.id = g.id;
    end if;
    delete from everpoll.events e where e.row = any (rows);
    perform set_config('everpoll.trimming', '', true);
    update everpoll.log set trims = trims + 1,
      low = greatest(low, (select max(i) from unnest(ids) i)), low_ts = greatest(low_ts, (select max(s) from unnest(stamps) s));
  end if;
  if looked > 0 then
    update everpoll.namespaces n
      set seen = greatest(n.seen, reached), low = greatest(n.low, g.low), low_ts = greatest(n.low_ts, g.low_ts)
      from unnest(mine) m (prefix) left join (
        select g.prefix, max(g.id) as low, max(g.ts) as low_ts from unnest(ids, names, stamps) g (id, prefix, ts) group by g.prefix
      ) g on g.prefix = m.prefix
      where n.prefix = m.prefix;
  end if;
end
$$;

-- As before: from all channels alike.
create or replace function everpoll.trim(max_age interval, up_to bigint, batch integer) returns integer
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select removed from everpoll.trim('{}', '{""}', max_age, up_to, batch)
$$;

-- As before, with what is new.
create or replace function everpoll.grant_reader(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant select on everpoll.events, everpoll.places, everpoll.positions, everpoll.log, everpoll.rifts, everpoll.migrations,
    everpoll.namespaces, everpoll.marks to %I', role);
  execute format('grant execute on function everpoll.cursor(), everpoll.adopt(), everpoll.declare_rift(bigint), everpoll.bounds(), everpoll.bounds_up_to(bigint),
    everpoll.read(bigint, bigint, bigint, bigint, timestamptz, text[]), everpoll.first_since(timestamptz),
    everpoll.tail(bigint, bigint, bigint), everpoll.settle(bigint, boolean), everpoll.namespace_of(text), everpoll.prefixes_of(text) to %I', role);
end
$$;

create or replace function everpoll.grant_trimmer(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema everpoll to %I', role);
  execute format('grant execute on function everpoll.adopt(), everpoll.trim(interval, bigint, integer), everpoll.surplus(bigint),
    everpoll.trim(text[], text[], interval, bigint, integer), everpoll.surplus(text[], text, bigint) to %I', role);
end
$$;

revoke all on function everpoll.prefixes_of(text), everpoll.namespace_of(text), everpoll.tail(bigint, bigint, bigint), everpoll.trim(text[], text[], interval, bigint, integer),
  everpoll.surplus(text[], text, bigint) from public;

-- Whoever may read or trim may go on doing so.
do $$
declare
  known record;
begin
  for known in
    select distinct r.rolname as role, p.oid = 'everpoll.bounds()'::regprocedure as reads
    from pg_proc p, aclexplode(p.proacl) a, pg_roles r
    where p.oid in ('everpoll.bounds()'::regprocedure, 'everpoll.trim(interval, bigint, integer)'::regprocedure)
      and a.privilege_type = 'EXECUTE' and r.oid = a.grantee
  loop
    if known.reads then
      perform everpoll.grant_reader(known.role);
    else
      perform everpoll.grant_trimmer(known.role);
    end if;
  end loop;
end
$$;
