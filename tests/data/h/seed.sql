-- The initial data of the conversations in `tests/data/transcripts` and of other tests.
-- The ids, names, tokens, and times are those of h at the time of the recording.

-- dave is muted (h: NIPSA), erin is deleted, and mallory has another authority.
INSERT INTO "user" (id, username, authority, display_name, description, activation_date, nipsa, deleted) VALUES
    (1, 'alice', 'localhost', 'Alice Ångström', 'about alice', '2024-01-02T03:04:05.678901', false, false),
    (2, 'bob', 'localhost', NULL, NULL, '2024-01-02T03:04:05.678901', false, false),
    (3, 'carol', 'localhost', 'Carol', NULL, '2024-01-02T03:04:05', false, false),
    (4, 'dave', 'localhost', 'Dave Nipsa', NULL, '2024-01-02T03:04:05.678901', true, false),
    (5, 'erin', 'localhost', NULL, NULL, NULL, false, true),
    (6, 'Luis.Silva', 'localhost', 'Luis Silva', NULL, '2024-01-02T03:04:05.678901', false, false),
    (7, 'mallory', 'example.com', 'Mallory', NULL, '2024-01-02T03:04:05.678901', false, false),
    (8, 'teacher', 'localhost', 'Teacher', NULL, '2024-01-02T03:04:05.678901', false, false),
    (9, 'student1', 'localhost', 'S1', NULL, '2024-01-02T03:04:05.678901', false, false),
    (10, 'student2', 'localhost', 'S2', NULL, '2024-01-02T03:04:05.678901', false, false),
    (11, 'nogroups', 'localhost', '', NULL, NULL, false, false);

INSERT INTO token (id, value, expires, user_id) VALUES
    (1, '6879-alice-developer-token', NULL, 1),
    (2, '6879-bob-developer-token', NULL, 2),
    (3, '6879-carol-developer-token', NULL, 3),
    (4, '6879-dave-developer-token', NULL, 4),
    (5, '6879-erin-developer-token', NULL, 5),
    (6, '6879-luis-developer-token', NULL, 6),
    (7, '6879-mallory-developer-token', NULL, 7),
    (8, '6879-teacher-developer-token', NULL, 8),
    (9, '6879-student1-developer-token', NULL, 9),
    (10, '6879-student2-developer-token', NULL, 10),
    (11, '6879-nogroups-developer-token', NULL, 11),
    (12, '5768-alice-oauth', '2099-01-01T00:00:00', 1),
    (13, '5768-alice-oauth-expired', '2001-01-01T00:00:00', 1),
    (14, '5768-alice-norefresh', '2099-01-01T00:00:00', 1),
    (15, '5768-alice-oauth-noexpiry-refreshexpired', NULL, 1),
    (16, '6879 token with spaces', NULL, 1),
    (17, '', NULL, 2),
    (18, '6879-üñí', NULL, 3);

INSERT INTO "group" (id, pubid, authority, readable_by) VALUES
    (1, '__world__', 'localhost', 'world'),
    (2, 'open1234', 'localhost', 'world'),
    (3, 'rest1234', 'localhost', 'world'),
    (4, 'priv1234', 'localhost', 'members'),
    (5, 'priv5678', 'localhost', 'members'),
    (6, 'lmsgrp12', 'localhost', 'members'),
    (7, 'nullread', 'localhost', NULL),
    (8, 'thirdpty', 'example.com', 'world');

INSERT INTO user_group (user_id, group_id, roles, lms_role) VALUES
    (1, 2, '["owner"]', NULL),
    (1, 3, '["owner"]', NULL),
    (2, 3, '["admin"]', NULL),
    (3, 3, '["member"]', NULL),
    (1, 4, '["owner"]', NULL),
    (2, 4, '["moderator"]', NULL),
    (3, 4, '["member"]', NULL),
    (2, 5, '["owner"]', NULL),
    (8, 6, '["owner"]', 'lms_instructor'),
    (9, 6, '["member"]', 'lms_student'),
    (10, 6, '["member"]', NULL),
    (1, 7, '["owner"]', NULL),
    (4, 4, '["member"]', NULL),
    (7, 8, '["owner"]', NULL);

INSERT INTO document (id, title) VALUES
    (1, 'Example Page — “quoted”'),
    (2, 'A Paper'),
    (3, 'Canonical'),
    (4, NULL),
    (5, 'Versioned'),
    (6, 'Assignment'),
    (7, ''),
    (8, 'Dup A'),
    (9, 'Dup B');

INSERT INTO document_uri (id, document_id, type, uri, uri_normalized, updated) VALUES
    (1, 1, 'self-claim', 'http://example.com/page', 'httpx://example.com/page', '2024-01-02T03:04:05.678901'),
    (2, 2, 'self-claim', 'http://example.com/paper.html', 'httpx://example.com/paper.html', '2024-01-05T00:00:00'),
    (3, 2, 'rel-alternate', 'http://example.com/paper.pdf', 'httpx://example.com/paper.pdf', '2024-01-04T00:00:00'),
    (4, 2, '', 'urn:x-pdf:abcdef0123456789', 'urn:x-pdf:abcdef0123456789', '2024-01-06T00:00:00'),
    (5, 2, 'highwire-doi', 'doi:10.1000/12345', 'doi:10.1000/12345', '2024-01-03T00:00:00'),
    (6, 3, 'self-claim', 'http://example.org/canon?ref=1', 'httpx://example.org/canon?ref=1', '2024-01-02T03:04:05.678901'),
    (7, 3, 'rel-canonical', 'http://example.org/canon', 'httpx://example.org/canon', '2024-01-02T03:04:05.678901'),
    (8, 5, 'self-claim', 'http://example.com/versioned', 'httpx://example.com/versioned', '2024-01-02T03:04:05.678901'),
    (9, 5, 'rel-shortlink', 'http://example.com/versioned-alt', 'httpx://example.com/versioned-alt', '2024-01-02T03:04:05.678901'),
    (10, 6, 'self-claim', 'http://lms.example/assignment', 'httpx://lms.example/assignment', '2024-01-02T03:04:05.678901'),
    (11, 8, 'rel-alternate', 'http://dup.example/shared', 'httpx://dup.example/shared', '2024-01-02T03:04:05.678901'),
    (12, 8, 'self-claim', 'http://dup.example/a', 'httpx://dup.example/a', '2024-01-02T03:04:05.678901'),
    (13, 9, 'rel-alternate', 'http://dup.example/shared', 'httpx://dup.example/shared', '2024-01-02T03:04:05.678901'),
    (14, 9, 'self-claim', 'http://dup.example/b', 'httpx://dup.example/b', '2024-01-02T03:04:05.678901');

-- Each annotation lists only the values that differ from the defaults.
CREATE TEMPORARY TABLE made (LIKE annotation) ON COMMIT DROP;
ALTER TABLE made
    ALTER created SET DEFAULT '2024-01-02T03:04:05.678901',
    ALTER updated SET DEFAULT '2024-01-02T03:04:05.678901',
    ALTER userid SET DEFAULT 'acct:alice@localhost',
    ALTER groupid SET DEFAULT '__world__',
    ALTER text SET DEFAULT 'Hello',
    ALTER tags SET DEFAULT '{one,two}',
    ALTER shared SET DEFAULT true,
    ALTER target_uri SET DEFAULT 'http://example.com/page',
    ALTER "references" SET DEFAULT '{}',
    ALTER extra SET DEFAULT '{}',
    ALTER deleted SET DEFAULT false,
    ALTER document_id SET DEFAULT 1,
    ALTER target_selectors SET DEFAULT '[{"type": "RangeSelector", "endOffset": 5, "startOffset": 0, "endContainer": "/p[1]", "startContainer": "/p[1]"}, {"type": "TextQuoteSelector", "exact": "Hello", "prefix": "", "suffix": " wörld"}, {"end": 5, "type": "TextPositionSelector", "start": 0}]';
INSERT INTO made (id)
    VALUES ('00000001-1111-11e6-8000-000000000001');
INSERT INTO made (id, shared)
    VALUES ('00000002-1111-11e6-8000-000000000002', false);
INSERT INTO made (id, groupid)
    VALUES ('00000003-1111-11e6-8000-000000000003', 'priv1234');
INSERT INTO made (id, groupid, shared)
    VALUES ('00000004-1111-11e6-8000-000000000004', 'priv1234', false);
INSERT INTO made (id, userid, text, tags, target_selectors, "references")
    VALUES ('00000005-1111-11e6-8000-000000000005', 'acct:bob@localhost', 'A reply', '{}', '[]', '{00000001-1111-11e6-8000-000000000001}');
INSERT INTO made (id, userid, text, tags, target_selectors, "references")
    VALUES ('00000006-1111-11e6-8000-000000000006', 'acct:carol@localhost', 'Nested reply', '{}', '[]', '{00000001-1111-11e6-8000-000000000001,00000005-1111-11e6-8000-000000000005}');
INSERT INTO made (id, userid, groupid, text, tags, moderation_status)
    VALUES ('00000007-1111-11e6-8000-000000000007', 'acct:carol@localhost', 'priv1234', 'secret bad', '{bad}', 'DENIED');
INSERT INTO made (id, userid, text, tags, moderation_status)
    VALUES ('00000008-1111-11e6-8000-000000000008', 'acct:carol@localhost', 'secret bad', '{bad}', 'DENIED');
INSERT INTO made (id, userid, groupid, text, tags, moderation_status)
    VALUES ('00000009-1111-11e6-8000-000000000009', 'acct:carol@localhost', 'open1234', 'pending', '{p}', 'PENDING');
INSERT INTO made (id, userid, groupid, text, tags, moderation_status)
    VALUES ('0000000a-1111-11e6-8000-00000000000a', 'acct:carol@localhost', 'rest1234', 'spam', '{s}', 'SPAM');
INSERT INTO made (id, moderation_status)
    VALUES ('0000000b-1111-11e6-8000-00000000000b', 'APPROVED');
INSERT INTO made (id, deleted)
    VALUES ('0000000c-1111-11e6-8000-00000000000c', true);
INSERT INTO made (id, userid, groupid, moderation_status, deleted)
    VALUES ('0000000d-1111-11e6-8000-00000000000d', 'acct:carol@localhost', 'priv1234', 'DENIED', true);
INSERT INTO made (id, shared, deleted)
    VALUES ('0000000e-1111-11e6-8000-00000000000e', false, true);
INSERT INTO made (id, userid, text)
    VALUES ('0000000f-1111-11e6-8000-00000000000f', 'acct:dave@localhost', 'by a nipsa''d author');
INSERT INTO made (id, userid, groupid)
    VALUES ('00000010-1111-11e6-8000-000000000010', 'acct:dave@localhost', 'priv1234');
INSERT INTO made (id, target_uri, document_id, version)
    VALUES ('00000011-1111-11e6-8000-000000000011', 'http://example.com/versioned', 5, 2);
INSERT INTO made (id, target_uri, document_id, version)
    VALUES ('00000012-1111-11e6-8000-000000000012', 'http://example.com/versioned', 5, 0);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000013-1111-11e6-8000-000000000013', 'http://example.com/versioned', 5);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000014-1111-11e6-8000-000000000014', 'http://example.com/paper.pdf', 2);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000015-1111-11e6-8000-000000000015', 'urn:x-pdf:abcdef0123456789', 2);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000016-1111-11e6-8000-000000000016', 'http://example.org/canon?ref=1', 3);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000017-1111-11e6-8000-000000000017', 'http://example.org/canon', 3);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000018-1111-11e6-8000-000000000018', 'http://nodocs.example/x/?b=2&a=1#frag', 4);
INSERT INTO made (id, extra, document_id)
    VALUES ('00000019-1111-11e6-8000-000000000019', '{"id": "not-the-id", "foo": {"bar": [1, 2.5, null, true, "ü"]}, "zzz": 1e300, "text": "not the text", "user_info": {"x": 1}}', 7);
INSERT INTO made (id, text, tags, target_selectors)
    VALUES ('0000001a-1111-11e6-8000-00000000001a', NULL, NULL, NULL);
INSERT INTO made (id, "references")
    VALUES ('0000001b-1111-11e6-8000-00000000001b', NULL);
INSERT INTO made (id, text)
    VALUES ('0000001c-1111-11e6-8000-00000000001c', 'hi @bob @mallory @luis');
INSERT INTO made (id, groupid)
    VALUES ('0000001d-1111-11e6-8000-00000000001d', 'priv1234');
INSERT INTO made (id, userid)
    VALUES ('0000001e-1111-11e6-8000-00000000001e', 'acct:ghost@localhost');
INSERT INTO made (id, userid)
    VALUES ('0000001f-1111-11e6-8000-00000000001f', 'notauserid');
INSERT INTO made (id, userid, groupid)
    VALUES ('00000020-1111-11e6-8000-000000000020', 'acct:mallory@example.com', 'thirdpty');
INSERT INTO made (id, groupid)
    VALUES ('00000021-1111-11e6-8000-000000000021', 'nogroup1');
INSERT INTO made (id, groupid)
    VALUES ('00000022-1111-11e6-8000-000000000022', 'nullread');
INSERT INTO made (id, groupid)
    VALUES ('00000023-1111-11e6-8000-000000000023', 'rest1234');
INSERT INTO made (id, target_uri)
    VALUES ('00000025-1111-11e6-8000-000000000025', NULL);
INSERT INTO made (id, target_uri)
    VALUES ('00000026-1111-11e6-8000-000000000026', 'http://[::1');
INSERT INTO made (id, text, tags, target_description)
    VALUES ('00000027-1111-11e6-8000-000000000027', 'naïve ☃ 😀   </script> "q" \ 	', '{täg,😀}', 'a déscription');
INSERT INTO made (id, userid, groupid, target_uri, document_id)
    VALUES ('00000028-1111-11e6-8000-000000000028', 'acct:teacher@localhost', 'lmsgrp12', 'http://lms.example/assignment', 6);
INSERT INTO made (id, userid, groupid, target_uri, document_id)
    VALUES ('00000029-1111-11e6-8000-000000000029', 'acct:student1@localhost', 'lmsgrp12', 'http://lms.example/assignment', 6);
INSERT INTO made (id, userid, groupid, target_uri, document_id)
    VALUES ('0000002a-1111-11e6-8000-00000000002a', 'acct:student2@localhost', 'lmsgrp12', 'http://lms.example/assignment', 6);
INSERT INTO made (id, userid, groupid, target_uri, "references", document_id)
    VALUES ('0000002b-1111-11e6-8000-00000000002b', 'acct:teacher@localhost', 'lmsgrp12', 'http://lms.example/assignment', '{00000029-1111-11e6-8000-000000000029}', 6);
INSERT INTO made (id, userid, groupid, target_uri, "references", document_id)
    VALUES ('0000002c-1111-11e6-8000-00000000002c', 'acct:student2@localhost', 'lmsgrp12', 'http://lms.example/assignment', '{00000029-1111-11e6-8000-000000000029}', 6);
INSERT INTO made (id, userid, groupid, target_uri, document_id)
    VALUES ('0000002d-1111-11e6-8000-00000000002d', 'acct:student1@localhost', 'lmsgrp12', 'http://lms.example/other', 4);
INSERT INTO made (id, target_selectors)
    VALUES ('0000002e-1111-11e6-8000-00000000002e', '[{"type": "TextQuoteSelector", "exact": "a\\u0000b", "prefix": "p\\u0000", "suffix": null}, {"type": "Other", "exact": "a\\u0000b"}]');
INSERT INTO made (id, created, updated)
    VALUES ('0000002f-1111-11e6-8000-00000000002f', '2024-01-02T03:04:05', '2024-01-02T03:04:05');
INSERT INTO made (id, userid)
    VALUES ('00000030-1111-11e6-8000-000000000030', 'acct:Luis.Silva@localhost');
INSERT INTO made (id, userid)
    VALUES ('00000031-1111-11e6-8000-000000000031', 'acct:luissilva@localhost');
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000032-1111-11e6-8000-000000000032', 'http://dup.example/shared', 8);
INSERT INTO made (id, groupid, moderation_status)
    VALUES ('00000033-1111-11e6-8000-000000000033', 'priv1234', 'DENIED');
INSERT INTO made (id, userid, groupid, shared, moderation_status)
    VALUES ('00000034-1111-11e6-8000-000000000034', 'acct:carol@localhost', 'priv1234', false, 'DENIED');
INSERT INTO made (id, target_uri)
    VALUES ('00000035-1111-11e6-8000-000000000035', '');
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000036-1111-11e6-8000-000000000036', 'file:///C:/a%20b.pdf', 4);
INSERT INTO made (id, target_uri, document_id)
    VALUES ('00000037-1111-11e6-8000-000000000037', 'HTTPS://User:Pw@EXAMPLE.com:443/a%7Eb/%e2%98%83//?b=2&utm_source=x&a=1&a=0&c#frag', 4);
INSERT INTO made (id)
    VALUES ('0123abcd-4567-e9ab-5cde-f0123456789a');
INSERT INTO annotation SELECT * FROM made;

INSERT INTO mention (id, annotation_id, user_id, username) VALUES
    (1, '0000001c-1111-11e6-8000-00000000001c', 2, 'bob'),
    (2, '0000001c-1111-11e6-8000-00000000001c', 7, 'mallory'),
    (3, '0000001c-1111-11e6-8000-00000000001c', 6, 'old.luis');

INSERT INTO flag (annotation_id, user_id) VALUES
    ('0000001d-1111-11e6-8000-00000000001d', 2),
    ('0000001d-1111-11e6-8000-00000000001d', 3);

INSERT INTO checkpoint (id, group_id, document_id, reveal_date) VALUES
    (1, 6, 6, NULL);

-- Rows added later get other ids.
SELECT setval(pg_get_serial_sequence(name, 'id'), 1000)
    FROM unnest('{"user",token,"group",user_group,document,document_uri,mention,flag,checkpoint}'::text[]) AS name;
