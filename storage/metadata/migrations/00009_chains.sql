-- Which images stand on which: the chain IDs (image-spec, "Layer ChainID") of
-- an image, one for each layer from the bottom; depth begins with 1. The one
-- marked as top is that of all its layers.

-- +goose Up
CREATE TABLE image_chains (
	repository_id BIGINT NOT NULL,
	digest        {{text}} NOT NULL,
	depth         BIGINT NOT NULL,
	chain_id      {{text}} NOT NULL,
	top           BOOLEAN NOT NULL,
	PRIMARY KEY (repository_id, digest, depth),
	FOREIGN KEY (repository_id, digest) REFERENCES images (repository_id, digest) ON DELETE CASCADE
);
CREATE INDEX image_chains_chain ON image_chains (chain_id, top);
-- So that those of images that are there are found once more.
UPDATE images SET config = NULL WHERE config IS NOT NULL;

-- +goose Down
DROP TABLE image_chains;
