package archive

import (
	"archive/tar"
	"encoding/json"
	"io"

	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/layer/scan"
)

// look gathers what is in a layer as it passes, for what its image is built on.
// What would take memory or time is left to the scanner: databases that can
// only be read whole, and the hashes of files.
type look struct {
	facts *scan.Collector
	also  layer.Collector // sees the entries too; nil for nobody
}

func newLook(also layer.Collector) *look { return &look{scan.NewLightCollector(), also} }

// collector is nil where l is.
func (l *look) collector() layer.Collector {
	if l == nil {
		return nil
	}
	return l
}

// Entry makes it a layer.Collector.
func (l *look) Entry(h *tar.Header) io.Writer {
	w := l.facts.Entry(h)
	if l.also == nil {
		return w
	}
	switch other := l.also.Entry(h); {
	case other == nil:
		return w
	case w == nil:
		return other
	default:
		return io.MultiWriter(w, other)
	}
}

// maxFacts bounds what is kept of all layers of an archive: of those that it
// does not suffice for the scanner finds out.
const maxFacts = 16 << 20

// keep is what was gathered of a whole layer; "" where the scanner is to find it.
func (in *intake) keep(l *look) string {
	if l == nil {
		return ""
	}
	facts := l.facts.Layer()
	if l.facts.Missed() {
		return ""
	}
	b, err := json.Marshal(facts)
	if err != nil || in.facts+len(b) > maxFacts { // strings and numbers can be encoded
		return ""
	}
	in.facts += len(b)
	return string(b)
}
