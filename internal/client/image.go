package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/tarport/tarport"
)

// Image is what is known of an image at the registry: of one platform.
type Image struct {
	Repository string
	Digest     string          // of its manifest
	ID         string          // the digest of its config
	DiffIDs    []string        // of its layers, bottom first
	Config     json.RawMessage // how a container of it runs, as Docker and OCI write it
}

// The types of manifests, as this client takes them.
const manifestTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"

// Image looks an image up, by tag or digest. Of several platforms it is the one
// of which the layers have these diffIDs. The error is tarport.NotFound where
// there is none.
func (c *Client) Image(ctx context.Context, repository, reference string, diffIDs []string) (*Image, error) {
	var doc struct {
		Config    struct{ Digest string }
		Manifests []struct{ Digest string }
	}
	digest, err := c.content(ctx, repository, "manifests/"+reference, &doc)
	if err != nil {
		return nil, err
	}
	if doc.Config.Digest == "" {
		const most = 50
		for _, m := range doc.Manifests[:min(len(doc.Manifests), most)] {
			im, err := c.Image(ctx, repository, m.Digest, diffIDs)
			if err == nil && slices.Equal(im.DiffIDs, diffIDs) {
				return im, nil
			}
			if err != nil && tarport.ErrorCode(err) != tarport.NotFound {
				return nil, err
			}
		}
		return nil, tarport.Errorf(tarport.NotFound, "%s:%s has no such platform", repository, reference)
	}
	im := &Image{Repository: repository, Digest: digest, ID: doc.Config.Digest}
	var config struct {
		Config json.RawMessage
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if _, err := c.content(ctx, repository, "blobs/"+im.ID, &config); err != nil {
		return nil, err
	}
	im.DiffIDs, im.Config = config.RootFS.DiffIDs, config.Config
	return im, nil
}

// maxDocument bounds a manifest or a config.
const maxDocument = 16 << 20

// content reads a manifest or a config, and returns the digest that the
// registry says it has.
func (c *Client) content(ctx context.Context, repository, path string, out any) (digest string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+"/v2/"+repository+"/"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", manifestTypes)
	req.Header.Set("User-Agent", "tarport/"+tarport.Version)
	if err := c.authorizeRepository(ctx, req, repository, "pull"); err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	switch {
	case err != nil:
		return "", Broken(fmt.Errorf("read the answer of %s: %w", c.base.Host, err))
	case resp.StatusCode == http.StatusOK:
	default:
		err := c.answerError(resp, b)
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound {
			e.Code = tarport.NotFound
		}
		return "", err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return "", fmt.Errorf("read %s of %s: %w", path, repository, err)
	}
	return resp.Header.Get("Docker-Content-Digest"), nil
}

// DeleteManifest deletes a manifest by its digest, with all tags that point to
// it.
func (c *Client) DeleteManifest(ctx context.Context, repository, digest string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, c.base.String()+"/v2/"+repository+"/manifests/"+digest, http.NoBody)
	if err != nil {
		return err
	}
	if err := c.authorizeRepository(ctx, req, repository, "delete"); err != nil {
		return err
	}
	_, err = c.send(req, nil)
	return err
}

// authorizeRepository is authorize for the routes of the distribution spec,
// which a bearer token of the API is not for.
func (c *Client) authorizeRepository(ctx context.Context, req *http.Request, repository, action string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.who.Password != "":
		req.SetBasicAuth(c.who.User, c.who.Password.Reveal())
		return nil
	case c.who.Identity == "":
		return nil
	}
	answer, err := c.askToken(ctx, "repository:"+repository+":"+action,
		url.Values{"grant_type": {"refresh_token"}, "refresh_token": {c.who.Identity.Reveal()}})
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+answer.Token.Reveal())
	return nil
}
