-- Events of some channels may stay for longer or shorter than the others: each namespace whose events ever did has a
-- low-water mark of its own.
--
-- The table "log" keeps the highest of these marks. Whoever looks there alone may tell a gap too much, and never one too few.

create table namespaces (
  -- How the names of its channels begin, such as "shop:". A channel is in the one with the longest prefix; all that are in
  -- no other are in ''. Rows stay when nothing is set for them any more: what they tell remains true.
  prefix text primary key,
  -- Its low-water mark: events on its channels up to this id are gone. With one mark for all, pages of a namespace that keeps
  -- its events would be told a gap whenever another loses some.
  low integer not null,
  -- The latest time of what is gone: the same for cursors that are a time.
  low_ts integer not null,
  -- Up to this id there are no events on its channels. Not the same as the mark: below it, there may never have been any. Without
  -- it, each look for what has to go would begin among all the events that others keep.
  seen integer not null
) strict, without rowid;
insert into namespaces (prefix, low, low_ts, seen) select '', low, low_ts, low from log;

-- Changes with each change of a mark by programs that know of namespaces. Without it, whoever follows the log would have to read
-- all marks again each time; and see the trigger below.
alter table log add column trims integer not null default 0;

-- A program that does not is about to remove everything up to this mark.
create trigger trim_alike after update of low on log
when new.trims = old.trims
begin
  update namespaces set low = max(low, new.low), low_ts = max(low_ts, new.low_ts), seen = max(seen, new.low);
  update log set trims = trims + 1;
end;

-- As before, for each namespace.
drop trigger keep;
create trigger keep before delete on events
when old.id > (
  select low from namespaces where substr(old.channel, 1, length(prefix)) = prefix order by length(prefix) desc limit 1)
begin
  select raise(abort, 'events leave the log only by retention; use: everpoll trim');
end;
