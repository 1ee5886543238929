-- Archives that are sent in parts.

-- +goose Up

-- A session whose repository is '' is an archive's: of no repository, and a
-- file in parts. size is what is there for good, length what it will have, -1
-- while nobody said; metadata is the client's own, as it came.
ALTER TABLE uploads ADD COLUMN length BIGINT NOT NULL DEFAULT -1;
ALTER TABLE uploads ADD COLUMN metadata {{text}} NOT NULL DEFAULT '';

-- The files that an archive's bytes lie in, one behind the other. id is the
-- file's; begins is where it does in the archive. What lies behind size in a
-- file counts for nothing.
CREATE TABLE upload_parts (
	id     {{text}} NOT NULL PRIMARY KEY,
	upload {{text}} NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
	begins BIGINT NOT NULL,
	size   BIGINT NOT NULL,
	UNIQUE (upload, begins)
);

-- +goose Down
DROP TABLE upload_parts;
DELETE FROM uploads WHERE repository = '';
ALTER TABLE uploads DROP COLUMN metadata;
ALTER TABLE uploads DROP COLUMN length;
