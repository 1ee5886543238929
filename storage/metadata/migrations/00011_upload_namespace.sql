-- An archive that was begun with a token for one namespace is for that one's
-- tokens, and for their owner.

-- +goose Up
ALTER TABLE uploads ADD COLUMN namespace {{text}} NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE uploads DROP COLUMN namespace;
