-- The columns of h's tables that its websocket process reads, with h's types and the indexes for these reads.
-- h's own tables have more columns, in another order.

CREATE TYPE group_readable_by AS ENUM ('members', 'world');
CREATE TYPE moderationstatus AS ENUM ('APPROVED', 'PENDING', 'DENIED', 'SPAM');

CREATE TABLE "user" (
    id serial PRIMARY KEY,
    username text NOT NULL,
    authority text NOT NULL,
    display_name text,
    description text,
    activation_date timestamp without time zone,
    nipsa boolean DEFAULT false NOT NULL,
    deleted boolean DEFAULT false NOT NULL
);
-- Names that differ only in dots or case are the same name.
CREATE UNIQUE INDEX ON "user" (lower(replace(username, '.', '')), authority);

CREATE TABLE token (
    id serial PRIMARY KEY,
    value text NOT NULL UNIQUE,
    expires timestamp without time zone,
    user_id integer NOT NULL REFERENCES "user" ON DELETE CASCADE
);
CREATE INDEX ON token (user_id);

CREATE TABLE "group" (
    id serial PRIMARY KEY,
    pubid text NOT NULL UNIQUE,
    authority text NOT NULL,
    readable_by group_readable_by
);

CREATE TABLE user_group (
    id serial PRIMARY KEY,
    user_id integer NOT NULL REFERENCES "user",
    group_id integer NOT NULL REFERENCES "group" ON DELETE CASCADE,
    roles jsonb DEFAULT '["member"]' NOT NULL,
    lms_role text CHECK (lms_role IN ('lms_instructor', 'lms_student')),
    UNIQUE (user_id, group_id)
);
CREATE INDEX ON user_group (group_id);

CREATE TABLE document (
    id serial PRIMARY KEY,
    title text
);

CREATE TABLE document_uri (
    id serial PRIMARY KEY,
    document_id integer NOT NULL REFERENCES document,
    type text DEFAULT '' NOT NULL,
    uri text NOT NULL,
    uri_normalized text NOT NULL,
    updated timestamp without time zone DEFAULT now() NOT NULL
);
CREATE INDEX ON document_uri (document_id);
CREATE INDEX ON document_uri (uri_normalized);

CREATE TABLE annotation (
    id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    created timestamp without time zone DEFAULT now() NOT NULL,
    updated timestamp without time zone DEFAULT now() NOT NULL,
    userid text NOT NULL,
    groupid text DEFAULT '__world__' NOT NULL,
    text text,
    tags text[],
    shared boolean DEFAULT false NOT NULL,
    target_uri text,
    target_selectors jsonb DEFAULT '[]',
    target_description text,
    "references" uuid[] DEFAULT '{}',
    extra jsonb DEFAULT '{}' NOT NULL,
    moderation_status moderationstatus,
    deleted boolean DEFAULT false NOT NULL,
    document_id integer NOT NULL REFERENCES document,
    version integer
);
CREATE INDEX ON annotation (groupid);
CREATE INDEX ON annotation (userid);
CREATE INDEX ON annotation (updated);

CREATE TABLE moderation_log (
    id serial PRIMARY KEY,
    moderator_id integer REFERENCES "user" ON DELETE CASCADE,
    annotation_id uuid NOT NULL REFERENCES annotation ON DELETE CASCADE,
    created timestamp without time zone DEFAULT now() NOT NULL,
    old_moderation_status moderationstatus,
    new_moderation_status moderationstatus NOT NULL
);
CREATE INDEX ON moderation_log (annotation_id);

CREATE TABLE mention (
    id serial PRIMARY KEY,
    annotation_id uuid NOT NULL REFERENCES annotation ON DELETE CASCADE,
    user_id integer NOT NULL REFERENCES "user" ON DELETE CASCADE,
    username text NOT NULL
);

CREATE TABLE flag (
    id serial PRIMARY KEY,
    annotation_id uuid NOT NULL REFERENCES annotation ON DELETE CASCADE,
    user_id integer NOT NULL REFERENCES "user" ON DELETE CASCADE,
    UNIQUE (annotation_id, user_id)
);

CREATE TABLE checkpoint (
    id serial PRIMARY KEY,
    group_id integer NOT NULL REFERENCES "group" ON DELETE CASCADE,
    document_id integer NOT NULL REFERENCES document ON DELETE CASCADE,
    reveal_date timestamp without time zone
);
