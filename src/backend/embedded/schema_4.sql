-- Version 4: the change log also records changes of the rights on annotations, for the events in the
-- history.
--
-- A row of kind 'token' without a token may name the author or the group whose annotations have
-- other readers now.
ALTER TABLE change ADD COLUMN author TEXT;
ALTER TABLE change ADD COLUMN grp TEXT;

-- The muted authors whose users have been deleted. Without a row, their annotations would become
-- readable by others.
CREATE TABLE muted_author (
    userid TEXT PRIMARY KEY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER author_added AFTER INSERT ON user BEGIN
    DELETE FROM muted_author WHERE userid = NEW.userid;
    INSERT INTO change (kind, author) VALUES ('token', NEW.userid);
END;
CREATE TRIGGER author_changed AFTER UPDATE OF userid, muted ON user
WHEN OLD.userid <> NEW.userid OR OLD.muted <> NEW.muted BEGIN
    INSERT OR IGNORE INTO muted_author (userid)
    SELECT OLD.userid WHERE OLD.muted AND OLD.userid <> NEW.userid;
    DELETE FROM muted_author WHERE userid = NEW.userid;
    INSERT INTO change (kind, author) VALUES ('token', OLD.userid);
    INSERT INTO change (kind, author)
    SELECT 'token', NEW.userid WHERE OLD.userid <> NEW.userid;
END;
CREATE TRIGGER author_gone AFTER DELETE ON user BEGIN
    INSERT OR IGNORE INTO muted_author (userid) SELECT OLD.userid WHERE OLD.muted;
    INSERT INTO change (kind, author) VALUES ('token', OLD.userid);
END;

CREATE TRIGGER group_added AFTER INSERT ON grp BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', NEW.id);
END;
CREATE TRIGGER group_changed AFTER UPDATE OF id, readable_by ON grp
WHEN OLD.id <> NEW.id OR OLD.readable_by <> NEW.readable_by BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', OLD.id);
    INSERT INTO change (kind, grp) SELECT 'token', NEW.id WHERE OLD.id <> NEW.id;
END;
CREATE TRIGGER group_gone AFTER DELETE ON grp BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', OLD.id);
END;

-- The rules of a plan depend on whether the group has moderators.
CREATE TRIGGER moderator_added AFTER INSERT ON membership WHEN NEW.role <> 'member' BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', NEW.group_id);
END;
CREATE TRIGGER moderator_changed AFTER UPDATE ON membership
WHEN OLD.group_id <> NEW.group_id OR (OLD.role = 'member') <> (NEW.role = 'member') BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', OLD.group_id);
    INSERT INTO change (kind, grp)
    SELECT 'token', NEW.group_id WHERE OLD.group_id <> NEW.group_id;
END;
CREATE TRIGGER moderator_removed AFTER DELETE ON membership WHEN OLD.role <> 'member' BEGIN
    INSERT INTO change (kind, grp) VALUES ('token', OLD.group_id);
END;
