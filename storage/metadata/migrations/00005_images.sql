-- What an image is, for those who have to choose one: facts of its config,
-- written in the transaction that makes its manifest visible, and facts of what
-- its layers hold, found later. Rows from before this are read in the background.

-- +goose Up

-- kind is image, index or artifact; null: not looked at yet. size is the sum of
-- the layers; of an index that of the images among its entries that are here.
ALTER TABLE manifests ADD COLUMN kind {{text}} CHECK (kind IN ('image', 'index', 'artifact'));
ALTER TABLE manifests ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
CREATE INDEX manifests_unread ON manifests (repository_id, digest) WHERE kind IS NULL;

-- Of an entry of an index: os/architecture[/variant]; '-' where it is no
-- platform's (attestations, layers of a cache); '' where the index does not say.
ALTER TABLE manifest_references ADD COLUMN platform {{text}} NOT NULL DEFAULT '';

-- size is the manifest's. version, its key and the words are the name's:
-- version_key has the order of versions, '' until it was made; variants are
-- words with a space between them; variant_words are those to search by, in
-- lower case, with a space on either side of each. pulled_at is 0 where the tag
-- was never pulled.
ALTER TABLE tags ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN version {{text}} NOT NULL DEFAULT '';
ALTER TABLE tags ADD COLUMN version_key {{text}} NOT NULL DEFAULT '';
ALTER TABLE tags ADD COLUMN variants {{text}} NOT NULL DEFAULT '';
ALTER TABLE tags ADD COLUMN variant_words {{text}} NOT NULL DEFAULT '';
ALTER TABLE tags ADD COLUMN pulls BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN pulled_at BIGINT NOT NULL DEFAULT 0;
DROP INDEX tags_digest;
CREATE INDEX tags_digest ON tags (repository_id, digest, name);
CREATE INDEX tags_version ON tags (repository_id, version_key, name);
CREATE INDEX tags_unread ON tags (repository_id, name) WHERE version_key = '';
CREATE INDEX tags_pushed ON tags (repository_id, updated_at, name);
CREATE INDEX tags_pulled ON tags (repository_id, pulled_at, name);
CREATE INDEX tags_size ON tags (repository_id, size, name);

-- The image manifests of each repository. config is JSON of what a list shows,
-- bounded; null where the config was not here to be read. What follows scan is
-- read from the layers: of an image whose layers are not all here it is 'none'.
CREATE TABLE images (
	repository_id   BIGINT NOT NULL,
	digest          {{text}} NOT NULL,
	os              {{text}} NOT NULL,
	architecture    {{text}} NOT NULL,
	variant         {{text}} NOT NULL,
	os_version      {{text}} NOT NULL,
	created_at      BIGINT, -- as the config says
	author          {{text}} NOT NULL,
	message         {{text}} NOT NULL,
	size            BIGINT NOT NULL,
	config          {{text}},
	scan            {{text}} NOT NULL CHECK (scan IN ('pending', 'ready', 'failed', 'none')),
	scan_reason     {{text}} NOT NULL DEFAULT '',
	base_id         {{text}} NOT NULL DEFAULT '',
	base_version    {{text}} NOT NULL DEFAULT '',
	base_name       {{text}} NOT NULL DEFAULT '',
	libc            {{text}} NOT NULL DEFAULT '',
	package_manager {{text}} NOT NULL DEFAULT '',
	packages        BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (repository_id, digest),
	FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest) ON DELETE CASCADE
);
CREATE INDEX images_unread ON images (repository_id, digest) WHERE config IS NULL;
CREATE INDEX images_pending ON images (repository_id, digest) WHERE scan = 'pending';
CREATE INDEX images_base ON images (repository_id, base_id);

-- What is known of what a layer holds, by its blob: the diffID of a config is a
-- claim. A worker holds a row until held_until.
CREATE TABLE layers (
	digest     {{text}} NOT NULL PRIMARY KEY REFERENCES blobs (digest) ON DELETE CASCADE,
	diff_id    {{text}}, -- null until its plain bytes were seen
	state      {{text}} NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'ready', 'failed')),
	reason     {{text}} NOT NULL DEFAULT '',
	attempts   BIGINT NOT NULL DEFAULT 0,
	holder     {{text}} NOT NULL DEFAULT '',
	held_until BIGINT NOT NULL DEFAULT 0,
	facts      {{text}} NOT NULL DEFAULT '', -- JSON, once it is ready
	changed_at BIGINT NOT NULL
);
CREATE INDEX layers_pending ON layers (held_until, changed_at) WHERE state = 'pending';

-- +goose Down
DROP TABLE layers;
DROP TABLE images;
DROP INDEX tags_size;
DROP INDEX tags_pulled;
DROP INDEX tags_pushed;
DROP INDEX tags_unread;
DROP INDEX tags_version;
DROP INDEX tags_digest;
CREATE INDEX tags_digest ON tags (repository_id, digest);
ALTER TABLE tags DROP COLUMN pulled_at;
ALTER TABLE tags DROP COLUMN pulls;
ALTER TABLE tags DROP COLUMN variant_words;
ALTER TABLE tags DROP COLUMN variants;
ALTER TABLE tags DROP COLUMN version_key;
ALTER TABLE tags DROP COLUMN version;
ALTER TABLE tags DROP COLUMN size;
ALTER TABLE manifest_references DROP COLUMN platform;
DROP INDEX manifests_unread;
ALTER TABLE manifests DROP COLUMN size;
ALTER TABLE manifests DROP COLUMN kind;
