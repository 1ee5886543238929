-- What the layers of an image tell, once they were looked into.

-- +goose Up

-- A Debian without its documentation, as the images of Debian called slim.
ALTER TABLE images ADD COLUMN slim BOOLEAN NOT NULL DEFAULT FALSE;

-- The names of an image's packages, to search by: in lower case, with a space
-- on either side of each. The packages with their versions are in its layers'
-- facts. An image without packages has no row.
CREATE TABLE image_packages (
	repository_id BIGINT NOT NULL,
	digest        {{text}} NOT NULL,
	names         {{text}} NOT NULL,
	PRIMARY KEY (repository_id, digest),
	FOREIGN KEY (repository_id, digest) REFERENCES images (repository_id, digest) ON DELETE CASCADE
);

-- A layer that is pending may have facts: an archive brought them, and its index
-- is to be made.
CREATE INDEX layers_diff_id ON layers (diff_id) WHERE diff_id IS NOT NULL;
CREATE INDEX layers_failed ON layers (digest) WHERE state = 'failed';

-- +goose Down
DROP INDEX layers_failed;
DROP INDEX layers_diff_id;
DROP TABLE image_packages;
ALTER TABLE images DROP COLUMN slim;
