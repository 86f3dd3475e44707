-- Where a page starts, for applications: everpoll.cursor() of PostgreSQL. Nothing less will do: the newest event may be
-- trimmed, and after a restore ids go on above all that were ever given. Comes out of the same snapshot as whatever else
-- the transaction reads from this file.
create view cursor (id) as
  select max(
    coalesce((select max(id) from events), 0),
    (select low from log),
    coalesce((select max(before) - 1 from rifts), 0));
