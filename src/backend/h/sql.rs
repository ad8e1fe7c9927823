//! All SQL statements, which name every table and column of h's that is read. Must not know: when
//! statements are sent, and how their results are used.
//!
//! A parameter of type `uuid` is sent as its 32 hexadecimal digits.

mod history;

use tokio_postgres::{Client, Error, Statement};

pub(super) use history::{HistoryStatements, MODERATION_LOG, Moderated};

/// The statements, prepared on a connection. [`row`](super::row) decodes their rows.
pub(super) struct Statements {
    pub identities: Statement,
    pub memberships: Statement,
    pub sweep: Statement,
    pub annotation: Statement,
    pub author: Statement,
    pub pages: Statement,
    pub mentions: Statement,
    pub flaggers: Statement,
    pub moderators: Statement,
    pub students: Statement,
    pub parents: Statement,
    pub history: HistoryStatements,
}

impl Statements {
    /// Prepares all statements in one batch.
    pub(super) async fn prepare(client: &Client) -> Result<Statements, Error> {
        let annotation = [ANNOTATION, WHERE_ID].concat();
        let (identities, memberships, sweep) = (
            [IDENTITIES, JOINED_MEMBERSHIPS].concat(),
            [MEMBERSHIPS, JOINED_MEMBERSHIPS, WHERE_NAMED].concat(),
            [SWEEP, JOINED_MEMBERSHIPS, WHERE_IN_LIST].concat(),
        );
        let prepared = tokio::try_join!(
            client.prepare(&identities),
            client.prepare(&memberships),
            client.prepare(&sweep),
            client.prepare(&annotation),
            client.prepare(AUTHOR),
            client.prepare(PAGES),
            client.prepare(MENTIONS),
            client.prepare(FLAGGERS),
            client.prepare(MODERATORS),
            client.prepare(STUDENTS),
            client.prepare(PARENTS),
            HistoryStatements::prepare(client),
        )?;
        Ok(Statements {
            identities: prepared.0,
            memberships: prepared.1,
            sweep: prepared.2,
            annotation: prepared.3,
            author: prepared.4,
            pages: prepared.5,
            mentions: prepared.6,
            flaggers: prepared.7,
            moderators: prepared.8,
            students: prepared.9,
            parents: prepared.10,
            history: prepared.11,
        })
    }
}

/// The settings of a connection, which are [`SETTINGS`] statements. The server itself aborts
/// statements after a timeout, so that it does not continue after the client has given up.
pub(super) const SET_UP: &str = "\
    SET default_transaction_read_only = on; \
    SET statement_timeout = '4s'; \
    SET idle_in_transaction_session_timeout = '10s'";
pub(super) const SETTINGS: u64 = 3;

/// Returns the tables that the role may not read, with the name of the role. `$1` and `$2` are
/// [`READ`]. Privileges may be granted for a table or for its columns.
pub(super) const MISSING_PRIVILEGES: &str = r"
SELECT DISTINCT needed.name, quote_ident(current_user::text) AS role
FROM unnest($1::text[], $2::text[]) AS needed(name, part)
WHERE NOT has_column_privilege(needed.name, needed.part, 'SELECT')
ORDER BY needed.name
";

/// All columns that are required, by table. [`MODERATION_LOG`] is optional. A test compares this list with the statements.
pub(super) const READ: &[(&str, &[&str])] = &[
    (
        "annotation",
        &[
            "id",
            "created",
            "updated",
            "userid",
            "groupid",
            "text",
            "tags",
            "shared",
            "target_uri",
            "target_selectors",
            "references",
            "extra",
            "deleted",
            "document_id",
            "moderation_status",
            "target_description",
            "version",
        ],
    ),
    ("checkpoint", &["group_id", "document_id", "reveal_date"]),
    ("document", &["id", "title"]),
    (
        "document_uri",
        &["document_id", "uri", "uri_normalized", "type", "updated"],
    ),
    ("flag", &["annotation_id", "user_id"]),
    ("\"group\"", &["id", "pubid", "readable_by"]),
    ("mention", &["id", "annotation_id", "user_id", "username"]),
    ("token", &["id", "value", "expires", "user_id"]),
    (
        "\"user\"",
        &[
            "id",
            "username",
            "authority",
            "display_name",
            "description",
            "activation_date",
            "nipsa",
            "deleted",
        ],
    ),
    ("user_group", &["user_id", "group_id", "roles", "lms_role"]),
];

/// All statements of an event read the same snapshot.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";

/// Selects the tokens in a list of values, with their positions in the list, from 1. An empty value
/// never matches, even if a row has it.
const IDENTITIES: &str = r#"
SELECT asked.place, token.id, token.expires, owner.username, owner.authority, joined.*
FROM unnest($1::text[]) WITH ORDINALITY AS asked(value, place)
JOIN token ON token.value = asked.value AND asked.value <> ''
JOIN "user" AS owner ON owner.id = token.user_id AND NOT owner.deleted
"#;

/// Selects the tokens in a list of ids, including those of deleted users.
const SWEEP: &str = r#"
SELECT token.id, token.expires, owner.username, owner.authority, owner.deleted, joined.*
FROM token
JOIN "user" AS owner ON owner.id = token.user_id
"#;
const WHERE_IN_LIST: &str = "WHERE token.id = ANY($1::int[])";

const MEMBERSHIPS: &str = r#"
SELECT owner.username, owner.authority, joined.*
FROM "user" AS owner
"#;

/// The memberships of `owner`: the ids of the groups, and the roles in the same order.
const JOINED_MEMBERSHIPS: &str = r#"
CROSS JOIN LATERAL (
    SELECT array_agg("group".pubid) AS groups, array_agg(member.roles ->> 0) AS roles
    FROM user_group AS member JOIN "group" ON "group".id = member.group_id
    WHERE member.user_id = owner.id
) AS joined
"#;

/// h treats usernames that differ only in dots and case as equal, and has an index for this.
const WHERE_NAMED: &str = r"
WHERE lower(replace(owner.username, '.', '')) = lower(replace($1::text, '.', ''))
AND owner.authority = $2::text AND NOT owner.deleted
";

const ANNOTATION: &str = r#"
SELECT annotation.id, annotation.created, annotation.updated, annotation.userid, annotation.groupid,
    annotation.text, annotation.tags, annotation.shared, annotation.target_uri,
    annotation.target_selectors::text, annotation."references", annotation.extra::text,
    annotation.deleted, annotation.document_id, annotation.moderation_status::text,
    annotation.target_description, annotation.version,
    "group".id AS group_id, "group".readable_by::text, document.title,
    CASE WHEN annotation.target_uri LIKE 'urn:x-pdf:%' THEN (
        SELECT uri FROM document_uri
        WHERE document_uri.document_id = annotation.document_id
        AND (uri LIKE 'http://%' OR uri LIKE 'https://%')
        ORDER BY document_uri.updated DESC LIMIT 1
    ) END AS web_address,
    EXISTS (
        SELECT FROM checkpoint
        WHERE checkpoint.group_id = "group".id
        AND checkpoint.document_id = annotation.document_id
        AND (reveal_date IS NULL OR reveal_date > now() AT TIME ZONE 'UTC')
    ) AS has_checkpoint,
    now() AT TIME ZONE 'UTC' AS read_at
FROM annotation
LEFT JOIN "group" ON "group".pubid = annotation.groupid
LEFT JOIN document ON document.id = annotation.document_id
"#;
const WHERE_ID: &str = "WHERE annotation.id = $1::text::uuid";

/// Selects the user with a name and an authority, including muted and deleted users, and whether
/// the user is an instructor of a group.
const AUTHOR: &str = r#"
SELECT username, authority, display_name, nipsa, EXISTS (
    SELECT FROM user_group
    WHERE user_id = "user".id AND group_id = $3::int AND lms_role = 'lms_instructor'
) AS instructs
FROM "user"
WHERE lower(replace(username, '.', '')) = lower(replace($1::text, '.', ''))
AND authority = $2::text
"#;

/// Selects all addresses of the document that contains a page, given in normal form. If several
/// documents do, h picks an arbitrary one; this picks the annotation's own, or the oldest.
const PAGES: &str = r"
SELECT DISTINCT uri_normalized, type = 'rel-canonical' AND uri = $3::text AS is_canonical
FROM document_uri
WHERE document_id = (
    SELECT document_id FROM document_uri WHERE uri_normalized = $1::text
    ORDER BY document_id <> $2::int, document_id LIMIT 1
)
ORDER BY is_canonical DESC, uri_normalized LIMIT 10000
";

const MENTIONS: &str = r#"
SELECT mention.username AS original_username, "user".username, "user".authority,
    "user".display_name, "user".description, "user".activation_date
FROM mention JOIN "user" ON "user".id = mention.user_id
WHERE mention.annotation_id = $1::text::uuid
ORDER BY mention.id
"#;

const FLAGGERS: &str = r#"
SELECT "user".username, "user".authority
FROM flag JOIN "user" ON "user".id = flag.user_id
WHERE flag.annotation_id = $1::text::uuid
"#;

const MODERATORS: &str = r#"
SELECT "user".username, "user".authority
FROM user_group JOIN "user" ON "user".id = user_group.user_id
WHERE user_group.group_id = $1::int
AND user_group.roles ->> 0 IN ('moderator', 'admin', 'owner')
"#;

/// Selects the users to which a checkpoint applies, if one is active for the group and the
/// document.
const STUDENTS: &str = r#"
SELECT "user".username, "user".authority
FROM user_group JOIN "user" ON "user".id = user_group.user_id
WHERE user_group.group_id = $1::int
AND user_group.lms_role IS DISTINCT FROM 'lms_instructor'
AND EXISTS (
    SELECT FROM checkpoint
    WHERE checkpoint.group_id = $1::int AND checkpoint.document_id = $2::int
    AND (reveal_date IS NULL OR reveal_date > now() AT TIME ZONE 'UTC')
)
"#;

/// Selects the authors of a list of annotations, if these are in the group.
const PARENTS: &str = r"
SELECT DISTINCT userid FROM annotation
WHERE id = ANY($1::text[]::uuid[]) AND groupid = $2::text
";
