-- Pulls are counted for the tag and for the manifest. robot_pulls are those of
-- pulls that robots made.

-- +goose Up
ALTER TABLE tags ADD COLUMN robot_pulls BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN pulls BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN robot_pulls BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN pulled_at BIGINT NOT NULL DEFAULT 0; -- 0: never

-- +goose Down
ALTER TABLE manifests DROP COLUMN pulled_at;
ALTER TABLE manifests DROP COLUMN robot_pulls;
ALTER TABLE manifests DROP COLUMN pulls;
ALTER TABLE tags DROP COLUMN robot_pulls;
