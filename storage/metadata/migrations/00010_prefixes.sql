-- How the plain bytes of layers begin, so that a layer whose name does not tell
-- its diffID is followed along one that is stored: see layer.Prefixes. A layer
-- of an older version has no row until its plain bytes pass again, and one
-- shorter than the first prefix never has one.

-- +goose Up

CREATE TABLE layer_prefixes (
	digest   {{text}} NOT NULL PRIMARY KEY REFERENCES blobs (digest) ON DELETE CASCADE,
	size     BIGINT NOT NULL, -- of the plain bytes
	first    {{bytes}} NOT NULL, -- of the prefixes
	prefixes {{bytes}} NOT NULL
);
CREATE INDEX layer_prefixes_first ON layer_prefixes (first, size);

-- +goose Down
DROP TABLE layer_prefixes;
