# Tarport. `make` lists the targets.

# Tools, at fixed versions; they are built by `go run` and cached by Go.
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT       = mvdan.cc/gofumpt@v0.12.0
GOVULNCHECK   = golang.org/x/vuln/cmd/govulncheck@v1.9.0

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOBUILD   = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/tarport/tarport.Version=$(VERSION)"
PLATFORMS = linux/amd64 linux/arm64 darwin/arm64
FUZZTIME ?= 20s

# Two packages take most of the time of tests with the race detector, and have
# nothing to show it. SQLite is C translated to Go: its memory is not on Go's
# heap, so it is not watched. argon2 (one lane) reads a password and returns a
# hash. All else is instrumented, the driver around SQLite included.
RACE = -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=golang.org/x/crypto/argon2=-race=false

.DEFAULT_GOAL := help
.PHONY: help build run test unit race lint fmt vet fuzz test-postgres e2e conformance cover image release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/tarport, one static binary
	$(GOBUILD) -o bin/tarport ./cmd/tarport

run: build ## run it with nothing configured: 127.0.0.1:5000, data in ./data
	./bin/tarport serve

# Four tests of a package at once, on any machine: many wait for a disk or a PostgreSQL.
test: ## install what the tests need, then check and test everything; what CI runs
	bash .ci/install
	$(MAKE) --no-print-directory fmt vet
	go test $(RACE) -p 2 -parallel 4 -timeout 25m ./...

unit: ## only the tests that need nothing but Go
	go test -short ./...

race: ## all tests but those of the built binary, with the race detector
	go test $(RACE) $$(go list ./... | grep -v /internal/e2e)

fmt: ## fail where a file is not formatted
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; fi

vet: ## go vet; without cgo, as the binary is built, so that the tests find it compiled
	CGO_ENABLED=0 go vet ./...

lint: ## golangci-lint, gofumpt and govulncheck; the first run builds them
	go run $(GOLANGCI_LINT) run ./...
	@files=$$(go run $(GOFUMPT) -l .); if [ -n "$$files" ]; then echo "not formatted (gofumpt -w):"; echo "$$files"; exit 1; fi
	go run $(GOVULNCHECK) ./...

fuzz: ## run each fuzz test for FUZZTIME (20s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	  done; \
	done

test-postgres: ## the tests that run on PostgreSQL; without it they fail instead of being skipped
	bash .ci/install
	CI=true go test -count=1 -run 'Postgres|PostgreSQL' ./...

e2e: ## the tests of the built binary: dockerd, skopeo, crane, conformance, crashes
	bash .ci/install
	go test -count=1 -v -timeout 20m ./internal/e2e

conformance: ## the OCI conformance suite, with its counts
	go test -count=1 -v -run '^TestConformance$$' ./internal/e2e

cover: ## coverage of all tests together, the built binary included, into cover.out
	rm -rf cover && mkdir cover
	GOCOVERDIR=$(CURDIR)/cover go test -count=1 -p 2 -timeout 25m -cover -coverpkg=./... ./... -args -test.gocoverdir=$(CURDIR)/cover
	go tool covdata textfmt -i=cover -o cover.out
	go tool cover -func=cover.out | tail -n 1

image: ## build the container image tarport:VERSION
	docker build --build-arg VERSION=$(VERSION) -t tarport:$(VERSION) .

release: ## build dist/: the binary for each platform, packed, with checksums
	rm -rf dist && mkdir -p dist
	@for platform in $(PLATFORMS); do \
	  name=tarport_$(VERSION)_$$(echo $$platform | tr / _); \
	  echo $$name; \
	  GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GOBUILD) -o dist/$$name/tarport ./cmd/tarport || exit 1; \
	  cp LICENSE README.md config.yml dist/$$name/ || exit 1; \
	  tar -C dist -czf dist/$$name.tar.gz --owner=0 --group=0 $$name && rm -r dist/$$name || exit 1; \
	done
	cd dist && sha256sum *.tar.gz >SHA256SUMS

clean: ## remove what was built
	rm -rf bin dist cover cover.out
