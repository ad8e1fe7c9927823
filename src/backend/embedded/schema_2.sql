-- Version 2: a reader of the change log can tell whether the log is still the one that it has read.
--
-- Every row has a random nonce. A reader that does not find the last row it has read, with that
-- row's nonce, is looking at another database or at an older state of this one, even if numbers
-- have been assigned again since.
ALTER TABLE change ADD COLUMN nonce INTEGER;
CREATE TRIGGER change_nonce AFTER INSERT ON change BEGIN
    UPDATE change SET nonce = random() WHERE seq = NEW.seq;
END;

-- A row of kind 'token' without a token is a mark: it has a place in the log, but no news. A new
-- token leaves one, so that a state from before the token existed cannot pass for the present one.
CREATE TRIGGER token_added AFTER INSERT ON token BEGIN
    INSERT INTO change (kind) VALUES ('token');
END;
-- The log is never empty.
INSERT INTO change (kind) VALUES ('token');
