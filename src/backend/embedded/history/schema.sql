-- The history, version 1. Every time is in milliseconds since the Unix epoch.

-- One row.
CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    epoch      INTEGER NOT NULL, -- random
    last       INTEGER NOT NULL, -- the last position, which is never assigned again
    last_time  INTEGER NOT NULL, -- the time of the last event
    floor      INTEGER NOT NULL, -- all events after this position are stored
    floor_time INTEGER NOT NULL, -- the time of the floor
    digest     INTEGER NOT NULL, -- of the checksums of all events and past states
    boot       TEXT    NOT NULL  -- the boot of the machine since which commits may not be synced, or ''
) STRICT;

-- The newest event of each subject. The next one replaces the row in its place.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY,
    seq      INTEGER NOT NULL UNIQUE, -- the position
    time     INTEGER NOT NULL,
    subject  TEXT    NOT NULL UNIQUE, -- 'a' and an annotation's id, or 'u' and a userid
    cause    INTEGER NOT NULL,        -- 0: an event; 1: a change of rights
    event    INTEGER NOT NULL,        -- the position of the last event on the subject
    author   TEXT,
    grp      TEXT,
    origin   INTEGER NOT NULL,        -- random, of the process that stored it
    readers  INTEGER NOT NULL,        -- the number of rows in reader_group
    checksum INTEGER NOT NULL,        -- of the other columns but id
    state    BLOB    NOT NULL,        -- the receivers
    body     BLOB    NOT NULL         -- the event as it was published
) STRICT;
CREATE INDEX event_of_author ON event (author);
CREATE INDEX event_of_group ON event (grp);

-- Other groups that an annotation names as readers.
CREATE TABLE reader_group (
    grp   TEXT    NOT NULL,
    event INTEGER NOT NULL, -- its id
    PRIMARY KEY (grp, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX reader_group_of_event ON reader_group (event);

-- Earlier receivers of a subject.
CREATE TABLE past (
    subject  TEXT    NOT NULL,
    until    INTEGER NOT NULL, -- the position of the event with other receivers
    checksum INTEGER NOT NULL,
    state    BLOB    NOT NULL,
    PRIMARY KEY (subject, until)
) STRICT, WITHOUT ROWID;

-- Recent events from a message queue, each of which every process receives.
CREATE TABLE queued (
    id     INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    digest BLOB    NOT NULL -- of the event
) STRICT;
CREATE INDEX queued_digest ON queued (digest);
