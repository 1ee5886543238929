package version

import (
	"regexp"
	"strings"
)

// stems are words that name a variant wherever they stand, alone or with a
// number at their end: what an image is built on, which part of it one gets,
// for which machine. Any word counts behind a version; these count without one.
var stems = set(
	// distributions and their releases
	"alpine debian ubuntu centos fedora rhel ubi rocky rockylinux alma almalinux amazonlinux al oraclelinux ol opensuse leap photon "+
		"openeuler anolis kylin uos wolfi distroless busybox scratch mariner azurelinux clearlinux archlinux nixos void",
	"wheezy jessie stretch buster bullseye bookworm trixie forky sid oldstable trusty xenial bionic focal jammy noble oracular plucky questing",
	"windows windowsservercore servercore nanoserver ltsc linux musl glibc uclibc static",
	// which part of it
	"slim fat full minimal micro tiny lite small mini base core runtime devel builder sdk debug nonroot root rootless unprivileged headless onbuild",
	"jdk jre jdkslim fpm apache cli zts nts embed perl otel management scm curl buildpack chrome browsers init aot composite extra",
	"cuda cudnn rocm gpu cpu tensorrt openvino py python node php java openjdk go ruby gcc clang",
	// for which machine
	"amd64 arm64 arm64v arm32v arm armv armhf aarch64 x86_64 x86 i386 i686 ppc64le s390x riscv64 loong64 loongarch64 mips64le",
)

// A number that follows one of these as a word of its own is a part of its name,
// as in debian-12. Before all other words a language does not take it: then it
// is the version, as in jdk-17.
var (
	distributions = set("alpine debian ubuntu centos fedora rhel ubi rocky rockylinux alma almalinux amazonlinux al oraclelinux ol opensuse leap " +
		"photon openeuler anolis kylin uos cuda cudnn rocm")
	languages = set("jdk jre java openjdk python py php node ruby go gcc clang")
)

func takesNumber(word string) bool { return distributions[word] || languages[word] }

func set(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for _, w := range strings.Fields(l) {
			m[w] = true
		}
	}
	return m
}

var (
	stem        = regexp.MustCompile(`^([a-z](?:[a-z0-9_]*?[a-z])?)\d+(?:\.\d+)*$`)
	shortNumber = regexp.MustCompile(`^\d{1,4}(?:\.\d{1,4}){0,2}$`)
)

// stemOf is a word without the number at its end; "" where it has none.
func stemOf(word string) string {
	if m := stem.FindStringSubmatch(word); m != nil {
		return m[1]
	}
	return ""
}

// flavour tells of a word, in lower case, that is a variant by itself.
func flavour(word string) bool { return stems[word] || stems[stemOf(word)] }

// knownTail are the words at the end of a name that are variants by themselves,
// as in lts-alpine3.19 and bookworm-slim.
func knownTail(words []string) []string {
	var joined []string
	for _, w := range words {
		w = strings.ToLower(w)
		if last := len(joined) - 1; last >= 0 && takesNumber(joined[last]) && shortNumber.MatchString(w) {
			joined[last] += w
			continue
		}
		joined = append(joined, w)
	}
	i := len(joined)
	for i > 0 && flavour(joined[i-1]) {
		i--
	}
	return joined[i:]
}
