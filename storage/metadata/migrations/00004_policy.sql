-- What bounds a namespace, and what is remembered of every change.

-- +goose Up

-- used_bytes is the sum of the sizes of the distinct blobs that the namespace's
-- repositories have a counted link to; reserved_bytes is what its open uploads
-- and batches have taken. Both change in the transaction that changes what they
-- count (quota.go), and POST /api/v1/admin/recount proves them.
ALTER TABLE namespaces ADD COLUMN quota_bytes BIGINT NOT NULL DEFAULT -1; -- -1: none
ALTER TABLE namespaces ADD COLUMN used_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE namespaces ADD COLUMN reserved_bytes BIGINT NOT NULL DEFAULT 0;

-- The link's namespace once more, so that it is one look into the index whether
-- a blob is another's in the namespace already. A link stops to count when the
-- last manifest that named its blob is deleted: the blob can be read until the
-- collector takes it, and nobody pays for it.
ALTER TABLE blob_links ADD COLUMN namespace_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blob_links ADD COLUMN counted BOOLEAN NOT NULL DEFAULT TRUE;
UPDATE blob_links SET namespace_id = (SELECT r.namespace_id FROM repositories r WHERE r.id = blob_links.repository_id);
DROP INDEX blob_links_digest;
CREATE INDEX blob_links_digest ON blob_links (digest, namespace_id, counted);
UPDATE namespaces SET used_bytes = COALESCE((SELECT CAST(SUM(b.size) AS BIGINT) FROM blobs b WHERE EXISTS
	(SELECT 1 FROM blob_links l WHERE l.digest = b.digest AND l.namespace_id = namespaces.id)), 0);

-- What an upload session has reserved, and in which namespace; 0 while its
-- namespace is not there yet. Sessions from before this have reserved nothing
-- and do so with their next request.
ALTER TABLE uploads ADD COLUMN namespace_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN reserved BIGINT NOT NULL DEFAULT 0;

-- What archives that are being read have reserved. No blob and no file depends
-- on such a row: one that a crash leaves is deleted when it expires.
CREATE TABLE batches (
	id           {{text}} NOT NULL,
	namespace_id BIGINT NOT NULL, -- that of one name can change while an archive is read
	reserved     BIGINT NOT NULL,
	expires_at   BIGINT NOT NULL,
	PRIMARY KEY (id, namespace_id)
);
CREATE INDEX batches_expires_at ON batches (expires_at);

-- A tag that a rule matches, and no exception of the same rule, points to what
-- it pointed to first, and stays. Patterns are globs or RE2, on the repository
-- without its namespace, and on the tag; an empty exception excepts nothing.
CREATE TABLE immutable_rules (
	id                {{id}},
	namespace_id      BIGINT NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
	syntax            {{text}} NOT NULL CHECK (syntax IN ('glob', 're2')),
	repository        {{text}} NOT NULL,
	except_repository {{text}} NOT NULL,
	tag               {{text}} NOT NULL,
	except_tag        {{text}} NOT NULL,
	created_at        BIGINT NOT NULL,
	created_by        {{text}} NOT NULL
);
CREATE INDEX immutable_rules_namespace ON immutable_rules (namespace_id);

-- Who changed what, when, from where. A row names things as they were called
-- and outlives them. namespace_id tells whose the event is: a namespace that is
-- made again under an old name does not see the old one's.
CREATE TABLE events (
	id           {{id}},
	at           BIGINT NOT NULL,
	namespace_id BIGINT NOT NULL, -- 0: of no namespace
	namespace    {{text}} NOT NULL,
	repository   {{text}} NOT NULL,
	actor_id     BIGINT NOT NULL, -- 0: a stranger, or the registry itself
	actor        {{text}} NOT NULL,
	action       {{text}} NOT NULL,
	target       {{text}} NOT NULL,
	detail       {{text}} NOT NULL, -- JSON object, or empty
	address      {{text}} NOT NULL,
	token_id     BIGINT NOT NULL, -- 0: a password, or none
	request_id   {{text}} NOT NULL
);
CREATE INDEX events_namespace ON events (namespace_id, id);
CREATE INDEX events_at ON events (at);

-- +goose Down
DROP TABLE events;
DROP TABLE immutable_rules;
DROP TABLE batches;
ALTER TABLE uploads DROP COLUMN reserved;
ALTER TABLE uploads DROP COLUMN namespace_id;
DROP INDEX blob_links_digest;
CREATE INDEX blob_links_digest ON blob_links (digest);
ALTER TABLE blob_links DROP COLUMN counted;
ALTER TABLE blob_links DROP COLUMN namespace_id;
ALTER TABLE namespaces DROP COLUMN reserved_bytes;
ALTER TABLE namespaces DROP COLUMN used_bytes;
ALTER TABLE namespaces DROP COLUMN quota_bytes;
