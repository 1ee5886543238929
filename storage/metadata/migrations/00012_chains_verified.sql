-- A chain comes from the diffIDs that a config claims: it tells of other images
-- once the registry has found the image's layers to have them.

-- +goose Up
ALTER TABLE image_chains ADD COLUMN verified BOOLEAN NOT NULL DEFAULT FALSE;
-- Those that are there are settled once more, from what is known of their layers.
UPDATE images SET scan = 'pending' WHERE scan = 'ready';

-- +goose Down
ALTER TABLE image_chains DROP COLUMN verified;
