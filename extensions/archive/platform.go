package archive

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// parsePlatform reads os/architecture[/variant], as docker's --platform takes
// it; an architecture alone is linux'. It is in the normal form.
func parsePlatform(s string) (ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return !isPlatformWord(p) }) {
		return ocispec.Platform{}, tarport.Errorf(tarport.Invalid, "platform=%s must be of the form os/architecture or os/architecture/variant, such as linux/arm64", quoted(s))
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalPlatform(p), nil
}

func isPlatformWord(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// normalPlatform gives a platform one spelling, as containerd/platforms does:
// aarch64 is arm64, and the variant that is the default (arm64/v8, amd64/v1) is
// left out, or (arm/v7) filled in.
func normalPlatform(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch p.Architecture + "/" + strings.TrimPrefix(p.Variant, "v") {
	case "amd64/1", "arm64/8":
		p.Variant = ""
	case "arm/", "arm/7":
		p.Variant = "v7"
	}
	return p
}

// samePlatform tells whether p is what was asked for. Both are normal.
func samePlatform(p, want ocispec.Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && p.Variant == want.Variant
}

// platformWords writes a platform as a user does.
func platformWords(p ocispec.Platform) string {
	return imageConfig{os: p.OS, architecture: p.Architecture, variant: p.Variant}.platform()
}
