package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// file is the whole file, for the strict pass.
type file struct {
	configuration.Configuration `yaml:",inline"`

	Tarport Tarport `yaml:"tarport"`
}

// storageSection lists the keys under storage:, which distribution's own type
// leaves open. The names of the drivers' parameters are those of v3.1.2.
type storageSection struct {
	Delete struct {
		Enabled any `yaml:"enabled"`
	} `yaml:"delete"`
	Redirect struct {
		Disable any `yaml:"disable"`
	} `yaml:"redirect"`
	Cache struct {
		BlobDescriptor     any `yaml:"blobdescriptor"`
		BlobDescriptorSize any `yaml:"blobdescriptorsize"`
		LayerInfo          any `yaml:"layerinfo"`
	} `yaml:"cache"`
	Tag struct {
		ConcurrencyLimit any `yaml:"concurrencylimit"`
	} `yaml:"tag"`
	Maintenance struct {
		UploadPurging struct {
			Enabled  any `yaml:"enabled"`
			Age      any `yaml:"age"`
			Interval any `yaml:"interval"`
			DryRun   any `yaml:"dryrun"`
		} `yaml:"uploadpurging"`
		ReadOnly struct {
			Enabled any `yaml:"enabled"`
		} `yaml:"readonly"`
	} `yaml:"maintenance"`
	Filesystem struct {
		RootDirectory string `yaml:"rootdirectory"`
		MaxThreads    any    `yaml:"maxthreads"`
	} `yaml:"filesystem"`
	InMemory struct{}     `yaml:"inmemory"`
	S3       s3Parameters `yaml:"s3"`
	S3AWS    s3Parameters `yaml:"s3aws"`
}

type s3Parameters struct {
	AccessKey                   any `yaml:"accesskey"`
	SecretKey                   any `yaml:"secretkey"`
	SessionToken                any `yaml:"sessiontoken"`
	Region                      any `yaml:"region"`
	RegionEndpoint              any `yaml:"regionendpoint"`
	RedirectEndpoint            any `yaml:"redirectendpoint"`
	ForcePathStyle              any `yaml:"forcepathstyle"`
	Bucket                      any `yaml:"bucket"`
	Encrypt                     any `yaml:"encrypt"`
	KeyID                       any `yaml:"keyid"`
	Secure                      any `yaml:"secure"`
	SkipVerify                  any `yaml:"skipverify"`
	V4Auth                      any `yaml:"v4auth"`
	ChunkSize                   any `yaml:"chunksize"`
	MultipartCopyChunkSize      any `yaml:"multipartcopychunksize"`
	MultipartCopyMaxConcurrency any `yaml:"multipartcopymaxconcurrency"`
	MultipartCopyThresholdSize  any `yaml:"multipartcopythresholdsize"`
	RootDirectory               any `yaml:"rootdirectory"`
	StorageClass                any `yaml:"storageclass"`
	UserAgent                   any `yaml:"useragent"`
	ObjectACL                   any `yaml:"objectacl"`
	UseDualStack                any `yaml:"usedualstack"`
	Accelerate                  any `yaml:"accelerate"`
	UseFIPSEndpoint             any `yaml:"usefipsendpoint"`
	LogLevel                    any `yaml:"loglevel"`
}

// decodeStrict reads the file with goccy/go-yaml, whose errors show the line;
// a key that nobody knows is one.
func decodeStrict(data []byte) (*file, error) {
	f := &file{Tarport: defaults()}
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := d.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, located(err, data)
	}
	if _, ok := nodeAt(data, "$.tarport").(ast.MapNode); !ok {
		f.Tarport = defaults() // an empty document sets everything to zero
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one YAML document")
	}
	return f, checkStorage(data)
}

// checkStorage looks at the keys below storage:.
func checkStorage(data []byte) error {
	node := nodeAt(data, "$.storage")
	m, ok := node.(ast.MapNode)
	if !ok {
		return nil // absent, empty, or only the name of a driver
	}
	for i := m.MapRange(); i.Next(); {
		if name := i.Key().String(); name == "azure" || name == "gcs" {
			return excerpt(&keyError{"storage." + name, "is no storage driver of this build: there are filesystem, s3 and inmemory"}, data)
		}
	}
	if err := yaml.NodeToValue(node, new(storageSection), yaml.Strict()); err != nil {
		return readable(err)
	}
	return nil
}

// readable is a YAML error with its line and excerpt.
func readable(err error) error {
	if u, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		u.Message = strings.Replace(u.Message, "unknown field", "unknown key", 1)
	}
	return errors.New(strings.TrimRight(yaml.FormatError(err, false, true), "\n"))
}

// located is readable, also for the values whose types are distribution's own:
// they know neither their key nor their line, so that each is tried alone.
func located(err error, data []byte) error {
	if _, ok := errors.AsType[yaml.Error](err); ok {
		return readable(err)
	}
	for _, v := range []struct {
		key string
		to  any
	}{
		{"version", new(configuration.Version)},
		{"log.level", new(configuration.Loglevel)},
		{"loglevel", new(configuration.Loglevel)},
		{"http.tls.clientauth", new(configuration.ClientAuth)},
		{"http.draintimeout", new(Duration)},
		{"validation.manifests.indexes.platforms", new(configuration.Platforms)},
		{"storage", new(configuration.Storage)},
		{"auth", new(configuration.Auth)},
		{"health", new(configuration.Health)},
		{"redis", new(configuration.Redis)},
		{"notifications", new(configuration.Notifications)},
		{"proxy", new(configuration.Proxy)},
	} {
		node := nodeAt(data, "$."+v.key)
		if node == nil {
			continue
		}
		if verr := yaml.NodeToValue(node, v.to); verr != nil {
			return excerpt(&keyError{v.key, verr.Error()}, data)
		}
	}
	return err
}

// keyError is what is wrong with a key. Its text is for the operator.
type keyError struct {
	key     string // as http.addr
	message string
}

func (e *keyError) Error() string { return e.key + ": " + e.message }

func keyErrorf(key, format string, args ...any) error {
	return &keyError{key, fmt.Sprintf(format, args...)}
}

// excerpt shows where in the file the key of a keyError stands: its value, or
// the key itself where more stands below it. A value can also come from the
// environment: then the key is not in the file, or the excerpt shows what was
// overridden.
func excerpt(err error, data []byte) error {
	e, ok := errors.AsType[*keyError](err)
	if !ok {
		return err
	}
	node := nodeAt(data, "$."+e.key)
	if node == nil {
		return err
	}
	if _, ok := node.(ast.ScalarNode); !ok {
		node = keyOf(data, e.key)
	}
	return readable(&yaml.SyntaxError{Message: e.Error(), Token: node.GetToken()})
}

// keyOf is the node of the key itself.
func keyOf(data []byte, key string) ast.Node {
	parent, name := "$", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		parent, name = "$."+key[:i], key[i+1:]
	}
	node := nodeAt(data, parent)
	if m, ok := node.(ast.MapNode); ok {
		for i := m.MapRange(); i.Next(); {
			if i.Key().String() == name {
				return i.Key()
			}
		}
	}
	return node
}

// nodeAt is the node at the path, or nil.
func nodeAt(data []byte, path string) ast.Node {
	p, err := yaml.PathString(path)
	if err != nil {
		return nil
	}
	n, err := p.ReadNode(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	return n
}
