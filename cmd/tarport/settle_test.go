package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
)

// TestImagesAreSettledWithoutAScanner: those that a migration has left pending.
func TestImagesAreSettledWithoutAScanner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := func() *policyTest {
		return &policyTest{t, start(t, dir, "tarport:\n  scan: {enabled: false}\n", "TARPORT_ADMIN_PASSWORD="+password)}
	}
	p := begin()
	p.call(http.StatusCreated, http.MethodPut, "/api/v1/archives/load?namespace=team&repo=app&tag=v1", dockerArchive(t, 1000))
	if code := p.end(); code != 0 {
		t.Fatalf("serve ended with %d:\n%s", code, p.output)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "tarport.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `UPDATE images SET scan = 'pending'; UPDATE image_chains SET verified = FALSE`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	p = begin()
	for { // it is done in the background, and the test's deadline ends the waiting
		var image struct{ Platforms []struct{ Scan string } }
		if err := json.Unmarshal([]byte(p.call(http.StatusOK, http.MethodGet, "/api/v1/repositories/team/app/-/manifests/v1", "")), &image); err != nil {
			t.Fatal(err)
		}
		if len(image.Platforms) == 1 && image.Platforms[0].Scan == "ready" {
			break
		}
	}
}
