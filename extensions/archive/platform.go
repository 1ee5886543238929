package archive

import (
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// parsePlatform reads os[/architecture[/variant]] in any spelling that Docker
// knows (aarch64, x86_64, LINUX/AMD64), as engine 29 does. Of a system alone the
// architecture is this machine's, and an architecture alone is linux'.
func parsePlatform(s string) (ocispec.Platform, error) {
	if !strings.Contains(s, "/") {
		if p, err := platforms.Parse("linux/" + s); err == nil && known(architectures, p.Architecture) {
			return p, nil
		}
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return p, tarport.Errorf(tarport.Invalid, "platform=%s must be of the form os[/architecture[/variant]], such as linux/arm64", quoted(s))
	}
	return p, nil
}

// checkPlatform refuses systems and architectures that nobody knows, as docker
// 20.10 does: nothing could run such an image.
func checkPlatform(p ocispec.Platform) error {
	if !known(systems, p.OS) || !known(architectures, p.Architecture) {
		return tarport.Errorf(tarport.Invalid, "platform=: there is no system %s, or it does not run on %s", quoted(p.OS), quoted(p.Architecture))
	}
	return nil
}

// What Go has names for, which the image specification uses.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#properties
const (
	systems       = " aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows zos "
	architectures = " 386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm "
)

func known(list, word string) bool {
	return word != "" && !strings.Contains(word, " ") && strings.Contains(list, " "+word+" ")
}

// normalPlatform gives a platform one spelling: aarch64 is arm64, and the
// variant that is the default (arm64/v8, amd64/v1) is left out, or (arm/v7)
// filled in.
func normalPlatform(p ocispec.Platform) ocispec.Platform { return platforms.Normalize(p) }

// samePlatform tells whether p is what was asked for. Both are normal.
func samePlatform(p, want ocispec.Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && p.Variant == want.Variant
}

// platformWords writes a platform as a user does.
func platformWords(p ocispec.Platform) string {
	return imageConfig{os: p.OS, architecture: p.Architecture, variant: p.Variant}.platform()
}
