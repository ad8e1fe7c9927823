-- Version 3: a group that was deleted stays known, as a private one without members.
--
-- Without a row, its id would be that of an unknown group, whose annotations are readable by
-- everybody if their permissions are: what was for members alone would become public.
ALTER TABLE grp ADD COLUMN deleted INTEGER; -- when; NULL: it is there
