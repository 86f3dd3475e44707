-- Trimming a large part of the log in many batches.
--
-- The first version deleted "id <= mark" from the very beginning of the index: each batch had to go past the entries of
-- all batches before it, which stay there until VACUUM. So the last of a million events took many times as long as the
-- first. Now a batch begins at the low-water mark. As before otherwise.

create or replace function everpoll.trim(max_age interval, up_to bigint, batch integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  cutoff timestamptz := clock_timestamp() - max_age;
  bottom bigint;
  mark bigint;
  mark_ts timestamptz;
  rows bigint[];
begin
  perform pg_advisory_xact_lock(x'45766572706f6c6d'::bigint);
  select low into bottom from everpoll.log;
  -- Ids, not times, decide what is oldest: the first event that stays keeps all that follow it.
  select max(id), max(ts), array_agg(row) into mark, mark_ts, rows
  from (
    select id, row, ts, bool_and(coalesce(ts < cutoff, false) or coalesce(id <= up_to, false)) over (order by id) as goes
    from (select p.id, p.row, p.ts from everpoll.positions p where p.id > bottom order by p.id limit batch) oldest
  ) marked
  where goes;
  if mark is null then
    return 0;
  end if;
  perform set_config('everpoll.trimming', 'yes', true);
  delete from everpoll.positions where id > bottom and id <= mark;
  delete from everpoll.events e where e.row = any (rows);
  update everpoll.log set low = mark, low_ts = greatest(low_ts, mark_ts);
  perform set_config('everpoll.trimming', '', true);
  return cardinality(rows);
end
$$;
