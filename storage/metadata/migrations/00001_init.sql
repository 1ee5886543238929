-- The whole of what is true about content, but for the bytes of blobs. Times
-- are Unix microseconds, UTC. {{id}}, {{text}} and {{bytes}} are the three
-- column types whose names differ between the databases (see migrate.go).

-- +goose Up
CREATE TABLE namespaces (
	id         {{id}},
	name       {{text}} NOT NULL UNIQUE,
	created_at BIGINT NOT NULL
);

CREATE TABLE repositories (
	id           {{id}},
	namespace_id BIGINT NOT NULL REFERENCES namespaces (id),
	name         {{text}} NOT NULL UNIQUE, -- with its namespace
	created_at   BIGINT NOT NULL,
	changed_at   BIGINT NOT NULL -- every change of its manifests and tags begins here: PostgreSQL's row lock puts them in order
);
CREATE INDEX repositories_namespace ON repositories (namespace_id);

-- A blob whose bytes lie on the storage driver. state 'going' means that the
-- collector has decided: to everybody else the blob is absent. leased_until is
-- moved on by every positive answer about the blob; the collector takes only
-- what nothing references and whose lease is over.
CREATE TABLE blobs (
	digest       {{text}} NOT NULL PRIMARY KEY,
	size         BIGINT NOT NULL CHECK (size >= 0),
	state        {{text}} NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'going')),
	leased_until BIGINT NOT NULL,
	created_at   BIGINT NOT NULL
);
CREATE INDEX blobs_leased_until ON blobs (leased_until);

-- A blob can be read in a repository only through its link there.
CREATE TABLE blob_links (
	repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	digest        {{text}} NOT NULL REFERENCES blobs (digest),
	linked_at     BIGINT NOT NULL,
	PRIMARY KEY (repository_id, digest)
);
CREATE INDEX blob_links_digest ON blob_links (digest);

-- What the compressed forms of a layer are: the diffID is the digest of its
-- plain tar.
CREATE TABLE diff_ids (
	diff_id     {{text}} NOT NULL,
	digest      {{text}} NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
	compression {{text}} NOT NULL CHECK (compression IN ('none', 'gzip', 'zstd')),
	PRIMARY KEY (diff_id, digest)
);
CREATE INDEX diff_ids_digest ON diff_ids (digest);

-- payload has the bytes as they came. descriptor is the manifest's own as JSON,
-- as a list of referrers shows it.
CREATE TABLE manifests (
	repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	digest        {{text}} NOT NULL,
	media_type    {{text}} NOT NULL,
	artifact_type {{text}} NOT NULL,
	subject       {{text}}, -- digest; it need not be here
	descriptor    {{text}} NOT NULL,
	payload       {{bytes}} NOT NULL,
	created_at    BIGINT NOT NULL,
	pushed_by     {{text}} NOT NULL,
	pushed_via    {{text}} NOT NULL,
	PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifests_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;

-- What a manifest names, in its order. kind 'manifest' is an entry of an index
-- that is itself a manifest; 'foreign' are layers that are elsewhere by design.
CREATE TABLE manifest_references (
	repository_id BIGINT NOT NULL,
	manifest      {{text}} NOT NULL,
	position      BIGINT NOT NULL,
	kind          {{text}} NOT NULL CHECK (kind IN ('config', 'layer', 'foreign', 'manifest')),
	digest        {{text}} NOT NULL,
	size          BIGINT NOT NULL,
	PRIMARY KEY (repository_id, manifest, position),
	FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest) ON DELETE CASCADE
);
CREATE INDEX manifest_references_digest ON manifest_references (digest, repository_id);

CREATE TABLE tags (
	repository_id BIGINT NOT NULL,
	name          {{text}} NOT NULL,
	digest        {{text}} NOT NULL,
	created_at    BIGINT NOT NULL,
	updated_at    BIGINT NOT NULL,
	pushed_by     {{text}} NOT NULL,
	pushed_via    {{text}} NOT NULL,
	PRIMARY KEY (repository_id, name),
	FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX tags_digest ON tags (repository_id, digest);

-- Every change of a tag; digest is null where it was deleted, previous where
-- it was new.
CREATE TABLE tag_history (
	id            {{id}},
	repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	name          {{text}} NOT NULL,
	digest        {{text}},
	previous      {{text}},
	changed_at    BIGINT NOT NULL,
	changed_by    {{text}} NOT NULL,
	changed_via   {{text}} NOT NULL
);
CREATE INDEX tag_history_tag ON tag_history (repository_id, name, id);

-- An upload session. Its bytes lie on the storage driver under its id. Only
-- the request that holds it (holder, until held_until) may write, finish or
-- cancel it, and a session is finished once: the row goes in the transaction
-- that makes the blob. hash is the state of its sha256 after size bytes.
CREATE TABLE uploads (
	id         {{text}} NOT NULL PRIMARY KEY,
	repository {{text}} NOT NULL,
	principal  BIGINT NOT NULL,
	size       BIGINT NOT NULL DEFAULT 0,
	hash       {{bytes}},
	holder     {{text}} NOT NULL DEFAULT '',
	held_until BIGINT NOT NULL DEFAULT 0,
	started_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL
);
CREATE INDEX uploads_principal ON uploads (principal);

-- +goose Down
DROP TABLE uploads;
DROP TABLE tag_history;
DROP TABLE tags;
DROP TABLE manifest_references;
DROP TABLE manifests;
DROP TABLE diff_ids;
DROP TABLE blob_links;
DROP TABLE blobs;
DROP TABLE repositories;
DROP TABLE namespaces;
