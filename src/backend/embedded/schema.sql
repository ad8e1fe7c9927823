-- Version 1. Every time is in milliseconds since the Unix epoch.

CREATE TABLE user (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    userid       TEXT    NOT NULL UNIQUE,
    display_name TEXT,
    muted        INTEGER NOT NULL DEFAULT 0 CHECK (muted IN (0, 1)),
    created      INTEGER NOT NULL
) STRICT;

-- AUTOINCREMENT: an id is never used again, so that "token 7 has ended" cannot end another token.
CREATE TABLE token (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    hash    BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256
    created INTEGER NOT NULL,
    expires INTEGER                                            -- NULL: never
) STRICT;
CREATE INDEX token_of_user ON token (user_id);

CREATE TABLE grp (
    id          TEXT    PRIMARY KEY NOT NULL,
    readable_by TEXT    NOT NULL CHECK (readable_by IN ('world', 'members')),
    created     INTEGER NOT NULL
) STRICT;
-- The group of everybody, which may have moderators like any other.
INSERT INTO grp (id, readable_by, created) VALUES ('__world__', 'world', 0);

CREATE TABLE membership (
    user_id  INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    group_id TEXT    NOT NULL REFERENCES grp (id) ON DELETE CASCADE,
    role     TEXT    NOT NULL CHECK (role IN ('member', 'moderator', 'admin', 'owner')),
    PRIMARY KEY (user_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_of_group ON membership (group_id, role);

-- What open connections have to be told. Triggers write it, so that a running server learns of a
-- change whoever made it. AUTOINCREMENT: numbers have no gaps but where rows were trimmed away.
CREATE TABLE change (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL CHECK (kind IN ('memberships', 'token', 'user')),
    userid TEXT,    -- of a user who is gone, or whose memberships changed
    token  INTEGER  -- the id of a token that ended
) STRICT;

CREATE TRIGGER change_trimmed AFTER INSERT ON change BEGIN
    DELETE FROM change WHERE seq <= NEW.seq - 10000;
END;

CREATE TRIGGER user_gone AFTER DELETE ON user BEGIN
    INSERT INTO change (kind, userid) VALUES ('user', OLD.userid);
END;
CREATE TRIGGER user_renamed AFTER UPDATE OF userid ON user WHEN OLD.userid <> NEW.userid BEGIN
    INSERT INTO change (kind, userid) VALUES ('user', OLD.userid);
END;

-- Where a token or a membership goes with its user, the user's own row says all.
CREATE TRIGGER token_ended AFTER DELETE ON token
WHEN EXISTS (SELECT 1 FROM user WHERE id = OLD.user_id) BEGIN
    INSERT INTO change (kind, token) VALUES ('token', OLD.id);
END;
-- A token that stands for something else now has ended for those who came in with it.
CREATE TRIGGER token_changed AFTER UPDATE ON token BEGIN
    INSERT INTO change (kind, token) VALUES ('token', OLD.id);
END;

CREATE TRIGGER membership_added AFTER INSERT ON membership BEGIN
    INSERT INTO change (kind, userid)
    SELECT 'memberships', userid FROM user WHERE id = NEW.user_id;
END;
CREATE TRIGGER membership_changed AFTER UPDATE ON membership BEGIN
    INSERT INTO change (kind, userid)
    SELECT 'memberships', userid FROM user WHERE id IN (OLD.user_id, NEW.user_id);
END;
CREATE TRIGGER membership_removed AFTER DELETE ON membership BEGIN
    INSERT INTO change (kind, userid)
    SELECT 'memberships', userid FROM user WHERE id = OLD.user_id;
END;
