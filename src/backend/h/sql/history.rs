//! The statements of the history: changes since a time, the rights of held annotations, and
//! annotations in batches.
//!
//! Owns: their text. Those for batches are the statements for one annotation, for an array. The
//! column `place` is the position in the array, from 1.

use tokio_postgres::{Client, Error, Statement};

use super::ANNOTATION;

/// The statements, prepared on a connection.
pub(in crate::backend::h) struct HistoryStatements {
    pub clock: Statement,
    pub changed_after: Statement,
    pub changed_before: Statement,
    /// `None` if there is no table that the role may read.
    pub moderated: Option<Moderated>,
    pub muted: Statement,
    pub groups: Statement,
    pub annotations: Statement,
    pub authors: Statement,
    pub pages: Statement,
    pub mentions: Statement,
    pub flaggers: Statement,
    pub moderators: Statement,
    pub students: Statement,
    pub parents: Statement,
}

/// The statements on the optional table `moderation_log`.
pub(in crate::backend::h) struct Moderated {
    pub after: Statement,
    pub newest: Statement,
}

impl HistoryStatements {
    /// Prepares all statements in one batch, except for those on the optional table.
    pub(super) async fn prepare(client: &Client) -> Result<HistoryStatements, Error> {
        let annotations = [ANNOTATION, WHERE_IDS].concat();
        let (after, before) = (
            [CHANGED, WHERE_AFTER].concat(),
            [CHANGED, WHERE_BEFORE].concat(),
        );
        let prepared = tokio::try_join!(
            client.prepare(CLOCK),
            client.prepare(&after),
            client.prepare(&before),
            client.prepare(MUTED),
            client.prepare(GROUPS),
            client.prepare(&annotations),
            client.prepare(AUTHORS),
            client.prepare(PAGES),
            client.prepare(MENTIONS),
            client.prepare(FLAGGERS),
            client.prepare(MODERATORS),
            client.prepare(STUDENTS),
            client.prepare(PARENTS),
        )?;
        Ok(HistoryStatements {
            clock: prepared.0,
            changed_after: prepared.1,
            changed_before: prepared.2,
            moderated: None,
            muted: prepared.3,
            groups: prepared.4,
            annotations: prepared.5,
            authors: prepared.6,
            pages: prepared.7,
            mentions: prepared.8,
            flaggers: prepared.9,
            moderators: prepared.10,
            students: prepared.11,
            parents: prepared.12,
        })
    }
}

impl Moderated {
    /// Prepares the statements. The table must exist.
    pub(in crate::backend::h) async fn prepare(client: &Client) -> Result<Moderated, Error> {
        let (after, newest) = (
            [MODERATED, WHERE_LOGGED_AFTER].concat(),
            [MODERATED, NEWEST_LOGGED].concat(),
        );
        let (after, newest) = tokio::try_join!(client.prepare(&after), client.prepare(&newest))?;
        Ok(Moderated { after, newest })
    }
}

/// Returns whether the optional table `moderation_log` exists, and whether the role may read the
/// columns that are used. Older versions of h do not have this table.
pub(in crate::backend::h) const MODERATION_LOG: &str = r"
SELECT to_regclass('moderation_log') IS NOT NULL AS exists, count(*) = 3 AS readable
FROM pg_attribute
WHERE attrelid = to_regclass('moderation_log') AND NOT attisdropped
AND attname IN ('id', 'annotation_id', 'created')
AND has_column_privilege(attrelid, attnum, 'SELECT')
";

/// The time of the transaction. h stores UTC in columns without a time zone.
const CLOCK: &str = "SELECT now() AT TIME ZONE 'UTC' AS now";

/// The state of annotations, and an estimate of their size that decompresses nothing.
const CHANGED: &str = r"
SELECT id, updated, deleted, moderation_status::text,
    coalesce(octet_length(text), 0)::bigint + coalesce(pg_column_size(target_selectors), 0)
    + pg_column_size(extra) AS size
FROM annotation
";

/// Selects a page of annotations in the order of their last change. A page continues after the last
/// row of the page before it: its time, in microseconds since 2000, and its id.
const WHERE_AFTER: &str = r"
WHERE updated >= timestamp '2000-01-01' + $1::bigint * interval '1 microsecond'
AND (updated, id) > (timestamp '2000-01-01' + $1::bigint * interval '1 microsecond', $2::text::uuid)
AND updated < 'infinity'
ORDER BY updated, id LIMIT $3::bigint
";

/// Like [`WHERE_AFTER`], newest first, and only since the time `$4`.
const WHERE_BEFORE: &str = r"
WHERE updated <= timestamp '2000-01-01' + $1::bigint * interval '1 microsecond'
AND (updated, id) < (timestamp '2000-01-01' + $1::bigint * interval '1 microsecond', $2::text::uuid)
AND updated >= timestamp '2000-01-01' + $4::bigint * interval '1 microsecond'
ORDER BY updated DESC, id DESC LIMIT $3::bigint
";

/// The state of moderated annotations. Moderation does not change `updated`.
const MODERATED: &str = r"
SELECT moderation_log.id AS log_id, moderation_log.created, annotation.id, annotation.updated,
    annotation.deleted, annotation.moderation_status::text,
    coalesce(octet_length(annotation.text), 0)::bigint
    + coalesce(pg_column_size(annotation.target_selectors), 0)
    + pg_column_size(annotation.extra) AS size
FROM moderation_log JOIN annotation ON annotation.id = moderation_log.annotation_id
";
const WHERE_LOGGED_AFTER: &str = r"
WHERE moderation_log.id > $1::int ORDER BY moderation_log.id LIMIT $2::bigint
";
const NEWEST_LOGGED: &str = "ORDER BY moderation_log.id DESC LIMIT $1::bigint";

/// Selects the muted users in a list of names and authorities.
const MUTED: &str = r#"
SELECT asked.place
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked(name, authority, place)
JOIN "user" ON lower(replace("user".username, '.', '')) = lower(replace(asked.name, '.', ''))
AND "user".authority = asked.authority
WHERE "user".nipsa
"#;

/// Selects the rights in a list of groups: the readers, the moderators, the documents with an active
/// checkpoint, and, if there are any, the users to which checkpoints apply.
const GROUPS: &str = r#"
SELECT asked.place, "group".id AS group_id, "group".readable_by::text,
    ARRAY(
        SELECT 'acct:' || "user".username || '@' || "user".authority
        FROM user_group JOIN "user" ON "user".id = user_group.user_id
        WHERE user_group.group_id = "group".id
        AND user_group.roles ->> 0 IN ('moderator', 'admin', 'owner')
    ) AS moderators,
    active.documents,
    CASE WHEN active.documents IS NOT NULL THEN ARRAY(
        SELECT 'acct:' || "user".username || '@' || "user".authority
        FROM user_group JOIN "user" ON "user".id = user_group.user_id
        WHERE user_group.group_id = "group".id
        AND user_group.lms_role IS DISTINCT FROM 'lms_instructor'
    ) END AS students
FROM unnest($1::text[]) WITH ORDINALITY AS asked(pubid, place)
LEFT JOIN "group" ON "group".pubid = asked.pubid
CROSS JOIN LATERAL (
    SELECT array_agg(document_id) AS documents FROM checkpoint
    WHERE checkpoint.group_id = "group".id
    AND (reveal_date IS NULL OR reveal_date > now() AT TIME ZONE 'UTC')
) AS active
"#;

const WHERE_IDS: &str = "WHERE annotation.id = ANY($1::text[]::uuid[])";

const AUTHORS: &str = r#"
SELECT asked.place, username, authority, display_name, nipsa, EXISTS (
    SELECT FROM user_group
    WHERE user_id = "user".id AND group_id = asked.group_id AND lms_role = 'lms_instructor'
) AS instructs
FROM unnest($1::text[], $2::text[], $3::int[]) WITH ORDINALITY
    AS asked(name, domain, group_id, place)
JOIN "user" ON lower(replace(username, '.', '')) = lower(replace(asked.name, '.', ''))
AND authority = asked.domain
"#;

const PAGES: &str = r"
SELECT asked.place, found.*
FROM unnest($1::text[], $2::int[], $3::text[]) WITH ORDINALITY AS asked(page, document, own, place)
CROSS JOIN LATERAL (
    SELECT DISTINCT uri_normalized, type = 'rel-canonical' AND uri = asked.own AS is_canonical
    FROM document_uri
    WHERE document_id = (
        SELECT document_id FROM document_uri WHERE uri_normalized = asked.page
        ORDER BY document_id <> asked.document, document_id LIMIT 1
    )
    ORDER BY is_canonical DESC, uri_normalized LIMIT 10000
) AS found
";

const MENTIONS: &str = r#"
SELECT mention.annotation_id, mention.username AS original_username, "user".username,
    "user".authority, "user".display_name, "user".description, "user".activation_date
FROM mention JOIN "user" ON "user".id = mention.user_id
WHERE mention.annotation_id = ANY($1::text[]::uuid[])
ORDER BY mention.id
"#;

const FLAGGERS: &str = r#"
SELECT flag.annotation_id, "user".username, "user".authority
FROM flag JOIN "user" ON "user".id = flag.user_id
WHERE flag.annotation_id = ANY($1::text[]::uuid[])
"#;

const MODERATORS: &str = r#"
SELECT user_group.group_id, "user".username, "user".authority
FROM user_group JOIN "user" ON "user".id = user_group.user_id
WHERE user_group.group_id = ANY($1::int[])
AND user_group.roles ->> 0 IN ('moderator', 'admin', 'owner')
"#;

/// Selects the users to which checkpoints apply, in groups with an active one.
const STUDENTS: &str = r#"
SELECT user_group.group_id, "user".username, "user".authority
FROM user_group JOIN "user" ON "user".id = user_group.user_id
WHERE user_group.group_id = ANY($1::int[])
AND user_group.lms_role IS DISTINCT FROM 'lms_instructor'
"#;

const PARENTS: &str = r"
SELECT DISTINCT asked.place, annotation.userid
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked(id, groupid, place)
JOIN annotation ON annotation.id = asked.id::uuid AND annotation.groupid = asked.groupid
";
