-- The event log in a file of its own.
--
-- SQLite has one writer at a time, so ids are in commit order by themselves: there is no second table for positions.
-- Applications may insert with plain SQL from any language. Nothing here needs an SQLite newer than 3.37.
--
-- The comment above a column or an index says what fails without it.

create table events (
  -- The event id that clients see, and their cursor. AUTOINCREMENT, since an id must not be used again after the
  -- newest event was removed: clients have gone past it.
  id integer primary key autoincrement,
  -- Whom it is for: without it, every subscriber would get everything.
  channel text not null,
  -- What happened, so that a page can choose a handler without looking into the data.
  type text not null,
  -- JSON text. Subscribers get it as it was published.
  data text not null,
  -- Publishing again after an unclear answer would make a second event without it.
  key text,
  -- The page that caused an event would get it back without it.
  exclude text,
  -- When it was placed, in microseconds since 1970, for cursors that are a time and for retention by age.
  ts integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000)
) strict;

-- Two publishers of the same key would both succeed without it. Trimming frees the key.
create unique index events_key on events (channel, key) where key is not null;
-- The events of one quiet channel among many others could only be found by reading all of them without it.
create index events_channel on events (channel, id);
-- A cursor that is a time would read the whole log without it.
create index events_ts on events (ts);

-- What retention removed, and which file this is. One row.
create table log (
  -- A second row would make the low-water mark a matter of luck.
  one integer primary key check (one = 1),
  -- The low-water mark: events up to this id are gone. Without it, a cursor before it would silently miss events.
  low integer not null default 0,
  -- The latest time of what is gone: the same for cursors that are a time.
  low_ts integer not null default 0,
  -- Differs in a copy of the file. Without it, a restored copy would give the ids of lost events to new ones, and
  -- clients that saw the lost ones would silently miss the new.
  fingerprint text not null
) strict;

-- Where the log went back: ids between "after" and "before" may have been given to events that are no longer here.
create table rifts (
  -- The newest event of the copy. Cursors up to it are fine.
  after integer not null,
  -- The first id that may be given since. It comes from the time, so it lies above all ids that a lost part can have.
  before integer primary key,
  -- For people: seconds since 1970.
  at integer not null
) strict;

-- Limits are in bytes of UTF-8, as everywhere. SQLite's texts may hold NUL, where length() ends. A message is a
-- literal, since older versions that share the file could not read anything else.
create trigger check_event before insert on events
begin
  select raise(abort, 'channel name is empty; name a channel of 1 to 200 bytes')
    where length(cast(new.channel as blob)) = 0;
  select raise(abort, 'channel name is too long, the limit is 200 bytes; shorten the name')
    where length(cast(new.channel as blob)) > 200;
  select raise(abort, 'channel name contains a control character, ''/'' or '',''; these are not allowed')
    where instr(cast(new.channel as blob), x'00')
       or new.channel glob '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || '/,]*';
  select raise(abort, 'type is empty; give one of 1 to 200 bytes, such as cheese_created')
    where length(cast(new.type as blob)) = 0;
  select raise(abort, 'type is too long, the limit is 200 bytes; shorten it')
    where length(cast(new.type as blob)) > 200;
  select raise(abort, 'type contains a control character; use printable ones')
    where instr(cast(new.type as blob), x'00')
       or new.type glob '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*';
  select raise(abort, 'types that begin with "everpoll:" are reserved; choose another')
    where new.type glob 'everpoll:*';
  select raise(abort, 'data is too long, the limit is 1048576 bytes; publish a reference to it instead')
    where length(cast(new.data as blob)) > 1048576;
  select raise(abort, 'data is not JSON; give JSON, such as null or {}')
    where not coalesce(json_valid(new.data), 0);
  select raise(abort, 'key must have 1 to 200 bytes, or be null')
    where length(cast(new.key as blob)) not between 1 and 200 or instr(cast(new.key as blob), x'00');
  select raise(abort, 'exclude must be a wait_id of 1 to 128 bytes, or null')
    where length(cast(new.exclude as blob)) not between 1 and 128;
  select raise(abort, 'exclude contains a control character; give the wait_id of a page')
    where instr(cast(new.exclude as blob), x'00')
       or new.exclude glob '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*';
end;

-- An id below the newest would never be read: everyone has gone past it.
create trigger order_event after insert on events
when new.id < (select max(id) from events) or new.id <= (select low from log)
begin
  select raise(abort, 'ids are given by the log; insert the event without one');
end;

-- Events never change: a client that has one would not hear of it.
create trigger keep_unchanged before update on events
begin
  select raise(abort, 'events never change; publish another event instead');
end;

-- Only trimming removes events: it moves the low-water mark first.
create trigger keep before delete on events
when old.id > (select low from log)
begin
  select raise(abort, 'events leave the log only by retention; use: everpoll trim');
end;
