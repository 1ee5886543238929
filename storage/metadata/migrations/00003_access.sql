-- Who may do what: namespaces with members, accounts of robots, personal access
-- tokens, and refresh tokens that are used once.

-- +goose Up
ALTER TABLE namespaces ADD COLUMN visibility {{text}} NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'public'));
ALTER TABLE namespaces ADD COLUMN description {{text}} NOT NULL DEFAULT '';
ALTER TABLE namespaces ADD COLUMN created_by {{text}} NOT NULL DEFAULT ''; -- a name, which outlives the account
CREATE INDEX namespaces_visibility ON namespaces (visibility);

ALTER TABLE repositories ADD COLUMN description {{text}} NOT NULL DEFAULT ''; -- one line
ALTER TABLE repositories ADD COLUMN readme {{text}} NOT NULL DEFAULT '';      -- Markdown, as its writer sent it

-- A robot is an account of a namespace: its name has a +, which no person's can
-- have, its role is its row in members, and its password_hash is the SHA-256 of
-- 256 random bits.
ALTER TABLE users ADD COLUMN namespace_id BIGINT REFERENCES namespaces (id) ON DELETE CASCADE; -- null: a person
ALTER TABLE users ADD COLUMN expires_at BIGINT; -- null: never
CREATE INDEX users_namespace ON users (namespace_id) WHERE namespace_id IS NOT NULL;

CREATE TABLE members (
	namespace_id BIGINT NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
	user_id      BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	role         {{text}} NOT NULL CHECK (role IN ('reader', 'writer', 'maintainer', 'owner')),
	added_at     BIGINT NOT NULL,
	PRIMARY KEY (namespace_id, user_id)
);
CREATE INDEX members_user ON members (user_id, namespace_id);

-- Personal access tokens. The hash is the SHA-256 of 256 random bits. namespace
-- is a name and not an id: it narrows and never grants, and may come later.
CREATE TABLE access_tokens (
	id         {{id}}, -- never used again, so that what names a revoked token names none
	user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	name       {{text}} NOT NULL,
	hash       {{bytes}} NOT NULL UNIQUE,
	read_only  BOOLEAN NOT NULL,
	namespace  {{text}} NOT NULL, -- '': all
	created_at BIGINT NOT NULL,
	expires_at BIGINT,            -- null: never
	used_at    BIGINT,            -- to the minute or so
	UNIQUE (user_id, name)
);

-- A family is what one login began. Tokens that are used once have a used_at
-- when they were; one that comes again ends its family.
ALTER TABLE refresh_tokens ADD COLUMN family {{text}} NOT NULL DEFAULT '';
ALTER TABLE refresh_tokens ADD COLUMN once BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE refresh_tokens ADD COLUMN used_at BIGINT;
ALTER TABLE refresh_tokens ADD COLUMN token_id BIGINT REFERENCES access_tokens (id) ON DELETE CASCADE; -- the token that it was got with
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_token ON refresh_tokens (token_id) WHERE token_id IS NOT NULL;

-- +goose Down
DROP INDEX refresh_tokens_token;
DROP INDEX refresh_tokens_family;
ALTER TABLE refresh_tokens DROP COLUMN token_id;
ALTER TABLE refresh_tokens DROP COLUMN used_at;
ALTER TABLE refresh_tokens DROP COLUMN once;
ALTER TABLE refresh_tokens DROP COLUMN family;
DROP TABLE access_tokens;
DROP TABLE members;
DELETE FROM users WHERE namespace_id IS NOT NULL;
DROP INDEX users_namespace;
ALTER TABLE users DROP COLUMN expires_at;
ALTER TABLE users DROP COLUMN namespace_id;
ALTER TABLE repositories DROP COLUMN readme;
ALTER TABLE repositories DROP COLUMN description;
DROP INDEX namespaces_visibility;
ALTER TABLE namespaces DROP COLUMN created_by;
ALTER TABLE namespaces DROP COLUMN description;
ALTER TABLE namespaces DROP COLUMN visibility;
