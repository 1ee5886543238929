package images

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The histories are of docker 20.10, 29 and 17, BuildKit 0.24 and 0.7, podman
// and umoci.
func TestAHistoryIsReadAsADockerfile(t *testing.T) {
	t.Parallel()
	const sum = "b3379c8899f400e9b0f98845d634693ced68d0f5850d29c16b58ccd2c476cda4"
	for _, c := range []struct{ by, comment, want string }{
		{`/bin/sh -c #(nop) ADD file:` + sum + ` in / `, "", `ADD file:b3379c8899f4 /`},
		{`/bin/sh -c #(nop) COPY dir:` + sum + ` in /opt/java openjdk `, "", `COPY dir:b3379c8899f4 /opt/java openjdk`},
		{`/bin/sh -euc #(nop) COPY --chown=1000:1000file:` + sum + ` in /srv/ `, "", `COPY --chown=1000:1000 file:b3379c8899f4 /srv/`},
		{`/bin/sh -c #(nop)  CMD ["bash"]`, "", `CMD ["bash"]`},
		{`/bin/sh -c #(nop)  CMD ["cat" "/app/VERSION"]`, "", `CMD ["cat", "/app/VERSION"]`},
		{`/bin/sh -euc #(nop)  CMD ["/bin/sh" "-euc" "echo \"shell form & <html> é ✓\""]`, "", `CMD ["/bin/sh", "-euc", "echo \"shell form & <html> é ✓\""]`},
		{`/bin/sh -euc #(nop)  HEALTHCHECK &{["CMD" "/bin/true" "--x"] "5s" "3s" "1m0s" '\x04'}`, "", `HEALTHCHECK --interval=5s --timeout=3s --start-period=1m0s --retries=4 CMD ["/bin/true", "--x"]`},
		{`HEALTHCHECK &{["CMD-SHELL" "curl -f http://x || exit 1"] "30s" "0s" "0s" "2s" '\x00'}`, buildkitComment, `HEALTHCHECK --interval=30s --start-interval=2s CMD curl -f http://x || exit 1`},
		{`HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" '\x00'}`, buildkitComment, `HEALTHCHECK NONE`},
		{`HEALTHCHECK something else`, buildkitComment, `HEALTHCHECK something else`},
		{`HEALTHCHECK &{["CMD" "x"] "5s" "0s" "0s" ""}`, "", `HEALTHCHECK --interval=5s CMD ["x"]`},
		{`/bin/sh -c #(nop)  EXPOSE 443/tcp 53/udp`, "", `EXPOSE 443/tcp 53/udp`},
		{`EXPOSE [8443/tcp]`, buildkitComment, `EXPOSE 8443/tcp`},
		{`EXPOSE map[8443/tcp:{} 53/udp:{}]`, buildkitComment, `EXPOSE 8443/tcp 53/udp`},
		{`/bin/sh -c #(nop)  VOLUME [/data /with space]`, "", `VOLUME /data /with space`},
		{`/bin/sh -euc #(nop)  SHELL [/bin/sh -euc]`, "", `SHELL [/bin/sh -euc]`},
		{`/bin/sh -euc #(nop)  ONBUILD RUN /bin/true`, "", `ONBUILD RUN /bin/true`},
		{`COPY hello /hello # buildkit`, buildkitComment, `COPY hello /hello`},
		{`RUN /bin/sh -c apk add curl # buildkit`, buildkitComment, `RUN apk add curl`},
		{`RUN |2 A=1 B=a b /bin/sh -c make $A # buildkit`, buildkitComment, `RUN make $A`},
		{`|1 A=b /bin/bash -c echo hi`, "", `RUN echo hi`},
		{`/bin/sh -c echo hi`, "", `RUN echo hi`},
		{`/bin/sh -c echo hi`, "a hand-made fix\nof two lines", "# a hand-made fix\n# of two lines\n# committed from a container that ran: /bin/sh -c echo hi"},
		{`sleep 1000`, "", `# sleep 1000`},
		{`sleep 1000`, "simple commit", "# simple commit\n# committed from a container that ran: sleep 1000"},
		{``, "Imported from -", `# Imported from -`},
		{``, "", `# nothing is known of this layer`},
	} {
		if got := instruction(ocispec.History{CreatedBy: c.by, Comment: c.comment}); got != c.want {
			t.Errorf("%q (%q)\n is %q\nwant %q", c.by, c.comment, got, c.want)
		}
	}
}

func TestALongCommandIsBrokenWhereItCanBe(t *testing.T) {
	t.Parallel()
	by := `/bin/sh -c apt-get update && apt-get install -y --no-install-recommends ca-certificates && echo 'a && b' "c && d" && rm -rf /var/lib/apt/lists/*`
	want := `RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo 'a && b' "c && d" \
    && rm -rf /var/lib/apt/lists/*
CMD ["bash"]
`
	got := dockerfile([]ocispec.History{{CreatedBy: by}, {CreatedBy: `CMD ["bash"]`, Comment: buildkitComment}})
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// FuzzInstruction: a history is what anybody pushed.
func FuzzInstruction(f *testing.F) {
	f.Add(`/bin/sh -c #(nop)  HEALTHCHECK &{["CMD" "x"] "5s" "3s" "1m0s" '\x04'}`, "")
	f.Add(`RUN |2 A=1 /bin/sh -c x # buildkit`, buildkitComment)
	f.Add("a\nb", "c\nd")
	f.Fuzz(func(t *testing.T, by, note string) {
		if got := instruction(ocispec.History{CreatedBy: by, Comment: note}); strings.TrimSpace(got) == "" {
			t.Errorf("%q (%q) is nothing", by, note)
		}
	})
}
